"""The HTTP API: parses requests, records jobs, shows their state and results. Runs no stage of the pipeline."""
