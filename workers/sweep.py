"""Periodic repair: sends what was recorded and not sent, takes back what a dead worker held, ends what is late.

Runs in each worker process. Each step is safe to run twice and at once: the ledger's scripts hand a job to one caller.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from pipeline.errors import PipelineError
from workers.jobs.ledger import Ledger, LedgerUnavailable
from workers.jobs.queue import JobQueue, QueueUnavailable

EVERY = 1.0
EXPIRE_UPLOADS_EVERY = 300.0

log = structlog.get_logger()


async def sweep_forever(ledger: Ledger, queue: JobQueue) -> None:
    while True:
        await asyncio.sleep(EVERY)
        try:
            await sweep(ledger, queue)
        except (LedgerUnavailable, QueueUnavailable) as error:
            log.warning("sweep.failed", error=repr(error))


async def expire_uploads_forever(expire: Callable[[], Awaitable[int]]) -> None:
    """Uploads past their time to live, in each worker process: removing one twice does no harm."""
    while True:
        try:
            if removed := await expire():
                log.info("uploads.expired", count=removed)
        except (PipelineError, OSError) as error:
            log.warning("uploads.expire_failed", error=str(error))
        await asyncio.sleep(EXPIRE_UPLOADS_EVERY)


async def sweep(ledger: Ledger, queue: JobQueue) -> None:
    """One pass."""
    for job_id in await ledger.expire():
        log.warning("job.deadline_passed", job_id=job_id)
    for job_id in await ledger.reclaim():
        log.warning("job.reclaimed", job_id=job_id)
    for job_id in await ledger.take_due():
        await queue.enqueue(job_id)
        await ledger.mark_sent(job_id)
        log.info("job.sent_again", job_id=job_id)
