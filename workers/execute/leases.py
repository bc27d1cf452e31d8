"""The claims that this process holds: one task renews them all, and stops the work on one that was lost."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from jobs.errors import LedgerUnavailable, StaleClaim
from jobs.ledger.claims import Claims
from jobs.model import Claim

ANSWER_TIME = 1.0
"""Seconds until work on a claim that Redis knows no more is stopped."""

log = structlog.get_logger()


@dataclass(eq=False)
class HeldLease:
    """A claim and the task that works under it. `is_lost` once another has the job, or it has ended."""

    claim: Claim
    task: asyncio.Task[object]
    is_lost: bool = field(default=False)

    def revoke(self) -> None:
        """Stop the work at once. The work's own last write must not be on its way: it makes the claim stale, too."""
        self.is_lost = True
        self.task.cancel()


class Leases:
    def __init__(self, claims: Claims, lease: float) -> None:
        self._claims = claims
        self.every = lease / 3
        self._held: set[HeldLease] = set()

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[HeldLease]:
        """Keep the claim alive while the current task works. The task is cancelled when the claim is lost."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in one
        held = HeldLease(claim, task)
        self._held.add(held)
        try:
            yield held
        finally:
            self._held.discard(held)

    async def renew_all(self) -> None:
        """Every `every` seconds, so that a lease outlasts two rounds that failed."""
        await asyncio.gather(*map(self._renew, tuple(self._held)))

    async def _renew(self, held: HeldLease) -> None:
        try:
            await self._claims.renew(held.claim)
        except StaleClaim:
            # Perhaps by this process's own final write, whose answer is on its way; then the hold ends by itself.
            await asyncio.sleep(ANSWER_TIME)
            if held in self._held:
                held.revoke()
        except LedgerUnavailable as error:  # The next round tries again; the lease outlasts two rounds.
            log.warning("lease.renew_failed", job_id=held.claim.job_id, error=str(error))
