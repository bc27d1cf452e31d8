"""`python -m workers worker …`: Celery's own command line, with Bunri's application."""

import sys

from workers.app import build_celery

if __name__ == "__main__":
    build_celery().start(sys.argv[1:])
