"""`bunri eval`: how well a model sorts labelled photos. No Redis, no queue: the pipeline's own vision stage."""
