"""The HTTP edge: parses requests, records jobs, shows what became of them. Runs no stage of the pipeline."""
