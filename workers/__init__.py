"""Celery workers: claim a job, run the pipeline, record its end. Nothing but `cli` imports this package."""
