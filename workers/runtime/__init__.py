"""How tasks reach us: all that touches private parts of Celery and kombu."""
