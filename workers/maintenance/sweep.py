"""Periodic repair: sends recorded jobs again, rescues the jobs of dead workers, expires overdue ones.

Runs in one worker process at a time. Each step may run twice and concurrently: the ledger's scripts hand a job to one
caller.
"""

import asyncio
from dataclasses import dataclass, field
from itertools import starmap

import structlog

from jobs.broker.queue import JobQueue
from jobs.ledger.ledger import Ledger

SWEEP_INTERVAL_SECONDS = 1.0

log = structlog.get_logger()


async def expire_overdue(ledger: Ledger) -> None:
    """Fail the jobs whose deadline has passed."""
    for job_id in await ledger.upkeep.expire_overdue():
        log.warning("job.deadline_passed", job_id=job_id)


@dataclass
class Rescuer:
    """Puts the jobs of dead workers back into the queue. `lease` is in seconds.

    While Redis is silent no worker can renew a lease. So after a silence the rescuer first waits until the living
    workers have renewed theirs: no paid result is lost, and no job counts as one that took down its worker.
    """

    ledger: Ledger
    lease: float
    _answered_at: float = field(default=float("-inf"), init=False)
    _resumes_at: float = field(default=float("-inf"), init=False)

    async def rescue_stalled(self) -> None:
        """Raises LedgerUnavailable."""
        await self.ledger.ping()
        now = asyncio.get_running_loop().time()
        if now - self._answered_at > max(self.lease / 3, 2 * SWEEP_INTERVAL_SECONDS):
            self._resumes_at = now + self.lease / 3 + SWEEP_INTERVAL_SECONDS
        self._answered_at = now
        if now < self._resumes_at:
            return
        for job_id in await self.ledger.upkeep.rescue_stalled():
            log.warning("job.reclaimed", job_id=job_id)


async def resend_due(ledger: Ledger, queue: JobQueue) -> None:
    """Send all due messages concurrently. A message that the broker refuses is due again in the next round."""
    due = await ledger.upkeep.take_due()
    sent = await asyncio.gather(*starmap(queue.enqueue, due), return_exceptions=True)
    failed = [job_id for (job_id, _), outcome in zip(due, sent, strict=True) if isinstance(outcome, BaseException)]
    await ledger.upkeep.send_soon(failed)
    if due:
        log.info("jobs.sent_again", sent=len(due) - len(failed), failed=len(failed))
