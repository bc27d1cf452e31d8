"""What this worker says of itself, again and again, so that others see that it lives and with which pipeline."""

import asyncio
from collections.abc import Callable

from jobs.ledger.ledger import Ledger
from jobs.model import WorkerBeat

EVERY = 5.0


class Heartbeat:
    """One per process."""

    def __init__(self, ledger: Ledger, say: Callable[[], WorkerBeat]) -> None:
        self._ledger = ledger
        self._say = say
        self._said: WorkerBeat | None = None
        self._turn = asyncio.Lock()

    async def beat(self) -> None:
        """Also between two rounds, when there is news: what was said before is replaced. Raises LedgerUnavailable."""
        async with self._turn:  # Else an older one that takes longer would be written over a newer one.
            beat = self._say()
            await self._ledger.fleet.beat(beat, instead_of=self._said)
            self._said = beat

    async def depart(self) -> None:
        if self._said is not None:
            await self._ledger.fleet.depart(self._said)
