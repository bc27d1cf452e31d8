"""Periodic repair: sends what was recorded and not sent, takes back what a dead worker held, ends what is late.

Runs in one worker process at a time. Each step is safe to run twice and at once: the ledger's scripts hand a job to
one caller.
"""

import asyncio
from dataclasses import dataclass, field
from itertools import starmap

import structlog

from jobs.broker.queue import JobQueue
from jobs.ledger.ledger import Ledger

EVERY = 1.0
"""Seconds between two rounds."""

log = structlog.get_logger()


async def expire_overdue(ledger: Ledger) -> None:
    for job_id in await ledger.upkeep.expire_overdue():
        log.warning("job.deadline_passed", job_id=job_id)


@dataclass
class Rescuer:
    """Puts back the jobs of dead workers.

    While Redis is silent nobody can renew a lease. So after a silence the living have their turn first: what they were
    paid for in the meantime is not lost, and no job counts as one that took down its worker.
    """

    ledger: Ledger
    lease: float
    _answered_at: float = field(default=float("-inf"), init=False)
    _goes_on_at: float = field(default=float("-inf"), init=False)

    async def round(self) -> None:
        await self.ledger.ping()
        now = asyncio.get_running_loop().time()
        if now - self._answered_at > max(self.lease / 3, 2 * EVERY):
            self._goes_on_at = now + self.lease / 3 + EVERY
        self._answered_at = now
        if now < self._goes_on_at:
            return
        for job_id in await self.ledger.upkeep.rescue_stalled():
            log.warning("job.reclaimed", job_id=job_id)


async def resend_due(ledger: Ledger, queue: JobQueue) -> None:
    """All at once. What the broker did not take is due again in the next round, not in half a minute."""
    due = await ledger.upkeep.take_due()
    sent = await asyncio.gather(*starmap(queue.enqueue, due), return_exceptions=True)
    failed = [job_id for (job_id, _), outcome in zip(due, sent, strict=True) if isinstance(outcome, BaseException)]
    await ledger.upkeep.send_soon(failed)
    if due:
        log.info("jobs.sent_again", sent=len(due) - len(failed), failed=len(failed))
