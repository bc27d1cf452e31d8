"""Which worker sweeps: one at a time, so that N of them do not look for the same work N times a second.

Only to save work. Two leaders, as after a stall, do no harm: the ledger's scripts hand each job to one caller.
"""

import asyncio
from collections.abc import Awaitable, Callable

from jobs.ledger.ledger import Ledger
from jobs.redis.connection import translated

LEADER = "bunri:leader"  # the worker that sweeps now; expires

TERM = 3.0
"""Seconds for which one leads without renewing: how long the sweep rests when its leader is killed."""

RENEW_EVERY = TERM / 3


class Leadership:
    def __init__(self, ledger: Ledger, worker: str) -> None:
        self._worker = worker
        self._lead = ledger.scripts.load("lead")
        self._ends_at = 0.0

    @property
    def is_ours(self) -> bool:
        return asyncio.get_running_loop().time() < self._ends_at

    async def seek(self) -> None:
        """Lead if nobody does, and go on leading. Raises LedgerUnavailable."""
        asked_at = asyncio.get_running_loop().time()
        if await self._ask(TERM):
            self._ends_at = asked_at + TERM

    async def resign(self) -> None:
        """Let another lead at once. Raises LedgerUnavailable; then the term runs out."""
        self._ends_at = 0.0
        await self._ask(0)

    def led(self, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """The work, for the leader only."""

        async def if_leader() -> None:
            if self.is_ours:
                await work()

        return if_leader

    async def _ask(self, seconds: float) -> bool:
        with translated():
            return bool(await self._lead(keys=[LEADER], args=[self._worker, int(seconds * 1000)]))
