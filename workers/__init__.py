"""Celery workers: claim a job, run the pipeline, record its end. Other packages enter by `workers.jobs` only."""
