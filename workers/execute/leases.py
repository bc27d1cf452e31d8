"""The claims that this process holds: one task renews their leases, and stops the work on a claim that was lost."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from jobs.errors import LedgerUnavailable, StaleClaim
from jobs.ledger.claims import Claims
from jobs.model import Claim

REVOKE_DELAY_SECONDS = 1.0
"""Time between the reply that a claim is stale and the stop of its work: the work's own final write may be why."""

log = structlog.get_logger()


@dataclass(eq=False)
class HeldLease:
    """A claim and the task that works under it. `is_lost`: another process has the job, or the job has ended."""

    claim: Claim
    task: asyncio.Task[object]
    is_lost: bool = field(default=False)

    def revoke(self) -> None:
        """Cancel the task at once. Its own final write must not be under way: that write makes the claim stale, too."""
        self.is_lost = True
        self.task.cancel()


class Leases:
    def __init__(self, claims: Claims, lease: float) -> None:
        """`lease` is in seconds. Three renewals fit into one lease."""
        self._claims = claims
        self.renew_interval = lease / 3
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
        """Call every `renew_interval` seconds, so that a lease outlasts two rounds that failed."""
        await asyncio.gather(*map(self._renew, tuple(self._held)))

    async def _renew(self, held: HeldLease) -> None:
        try:
            await self._claims.renew(held.claim)
        except StaleClaim:
            # This process's own final write may be the cause, with its reply under way; then the hold ends by itself.
            await asyncio.sleep(REVOKE_DELAY_SECONDS)
            if held in self._held:
                held.revoke()
        except LedgerUnavailable as error:  # The next round tries again; the lease outlasts two rounds.
            log.warning("lease.renew_failed", job_id=held.claim.job_id, error=str(error))
