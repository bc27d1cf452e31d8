"""The way into the queue, by Redis or by Celery."""
