"""Periodic repair: sends what was recorded and not sent, takes back what a dead worker held, ends what is late.

Runs in each worker process. Each step is safe to run twice and at once: the ledger's scripts hand a job to one caller.
"""

import structlog

from workers.jobs.ledger import Ledger
from workers.jobs.queue import JobQueue

EVERY = 1.0
"""Seconds between two rounds."""

log = structlog.get_logger()


async def sweep(ledger: Ledger, queue: JobQueue) -> None:
    """One pass."""
    for job_id in await ledger.expire():
        log.warning("job.deadline_passed", job_id=job_id)
    for job_id in await ledger.reclaim():
        log.warning("job.reclaimed", job_id=job_id)
    for job_id in await ledger.take_due():
        await queue.enqueue(job_id)
        log.info("job.sent_again", job_id=job_id)
