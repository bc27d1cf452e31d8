"""`bunri eval`: measures a model on labelled photos. No Redis, no queue: it runs the pipeline's own vision stage."""
