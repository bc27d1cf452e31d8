"""`python -m workers worker …`: Celery's own command line, with Bunri's application."""

import os
import sys

from workers.app import build_celery

NOT_FOR_CELERY = ("APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE", "SKIP_CHECKS")
"""Variables that Celery's command line would prefer to the application: `BROKER_URL` is our setting, in forms that
Celery does not know, and names as common as `APP` belong to whatever else runs here.
"""

if __name__ == "__main__":
    app = build_celery()
    for name in NOT_FOR_CELERY:
        os.environ.pop(name, None)
    app.start(sys.argv[1:])
