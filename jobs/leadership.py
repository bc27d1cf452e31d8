"""Which worker sweeps: one at a time, so that N of them do not look for the same work N times a second.

Only to save work. Two leaders, as after a stall, do no harm: the ledger's scripts hand each job to one caller.
"""

import asyncio
from collections.abc import Awaitable, Callable

from jobs.ledger.connection import LedgerConnection
from jobs.redis.connection import translated

LEADER_TTL = 3.0
"""Seconds that a worker leads without renewing: how long the sweep rests when its leader is killed."""

RENEW_EVERY = LEADER_TTL / 3


class Leadership:
    def __init__(self, ledger: LedgerConnection, worker: str) -> None:
        self._worker = worker
        self._lead = ledger.scripts.load("lead")
        self._ends_at = 0.0

    @property
    def is_ours(self) -> bool:
        return asyncio.get_running_loop().time() < self._ends_at

    async def seek(self) -> None:
        """Become the leader if there is none, or stay it. Raises LedgerUnavailable."""
        asked_at = asyncio.get_running_loop().time()
        if await self._ask(LEADER_TTL):
            self._ends_at = asked_at + LEADER_TTL

    async def resign(self) -> None:
        """Let another worker lead at once. Raises LedgerUnavailable; then the leadership expires."""
        self._ends_at = 0.0
        await self._ask(0)

    def led(self, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """Wraps the work so that only the leader does it."""

        async def if_leader() -> None:
            if self.is_ours:
                await work()

        return if_leader

    async def _ask(self, seconds: float) -> bool:
        with translated():
            return bool(await self._lead(worker=self._worker, ttl_ms=int(seconds * 1000)))
