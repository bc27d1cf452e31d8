"""The heartbeat of this worker: shows the others that it lives and which pipeline it runs."""

import asyncio
from collections.abc import Callable

from jobs.ledger.ledger import Ledger
from jobs.model import WorkerBeat

HEARTBEAT_INTERVAL_SECONDS = 5.0


class Heartbeat:
    """One per process."""

    def __init__(self, ledger: Ledger, current: Callable[[], WorkerBeat]) -> None:
        self._ledger = ledger
        self._current = current
        self._last: WorkerBeat | None = None
        self._lock = asyncio.Lock()

    async def beat(self) -> None:
        """Write the current state in place of the last one. Call it between two rounds, too, when the state changes.

        Raises LedgerUnavailable.
        """
        async with self._lock:  # Else an older beat that takes longer would overwrite a newer one.
            beat = self._current()
            await self._ledger.fleet.beat(beat, instead_of=self._last)
            self._last = beat

    async def depart(self) -> None:
        """Remove this worker from the list of those that live. Raises LedgerUnavailable."""
        if self._last is not None:
            await self._ledger.fleet.depart(self._last)
