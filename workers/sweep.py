"""Periodic repair: sends what was recorded and not sent, takes back what a dead worker held, ends what is late.

Runs in each worker process. Each step is safe to run twice and at once: the ledger's scripts hand a job to one caller.
"""

import asyncio
from itertools import starmap

import structlog

from workers.jobs.ledger import Ledger
from workers.jobs.queue import JobQueue

EVERY = 1.0
"""Seconds between two rounds."""

log = structlog.get_logger()


async def end_late(ledger: Ledger) -> None:
    for job_id in await ledger.expire():
        log.warning("job.deadline_passed", job_id=job_id)


async def take_back(ledger: Ledger) -> None:
    for job_id in await ledger.reclaim():
        log.warning("job.reclaimed", job_id=job_id)


async def send_due(ledger: Ledger, queue: JobQueue) -> None:
    """All at once. What the broker did not take is due again in the next round, not in half a minute."""
    due = await ledger.take_due()
    sent = await asyncio.gather(*starmap(queue.enqueue, due), return_exceptions=True)
    failed = [job_id for (job_id, _), outcome in zip(due, sent, strict=True) if isinstance(outcome, BaseException)]
    await ledger.send_soon(failed)
    if due:
        log.info("jobs.sent_again", sent=len(due) - len(failed), failed=len(failed))
