"""The line of waiting jobs: how many stand ahead of one, and how long that takes at the pace of the fleet."""

import asyncio
from dataclasses import dataclass
from typing import assert_never

from jobs.ledger.ledger import LEASES, QUEUED, WORKERS, Ledger
from jobs.model import Job, JobStatus, Priority
from jobs.redis.connection import translated

BULK_SHARE = 8
"""While both lanes have jobs, one turn in so many is a bulk job's (`workers/runtime/channel.py`)."""

HEARTBEAT_TTL = 15.0
"""Seconds after its last beat in which a worker counts as live."""


@dataclass(frozen=True)
class Line:
    """The line, and the fleet that serves it, at one moment.

    `turn` is how many seconds a job has lately held its slot, None when nobody can say. `interactive_rate` is how many
    interactive jobs a second the fleet has lately served.
    """

    interactive: int
    bulk: int
    slots: int
    running: int
    turn: float | None
    interactive_rate: float = 0.0

    def ahead(self, priority: Priority) -> int:
        """How many would be served before a job that joins now."""
        match priority:
            case Priority.INTERACTIVE:
                return self.interactive
            case Priority.BULK:
                return self.interactive + self.bulk
            case _:
                assert_never(priority)

    def wait(self, priority: Priority, ahead: int) -> float | None:
        """Seconds until a job behind `ahead` others gets a slot; 0 when one is free for it, None when nobody can say.

        It looks at turns, so a job that is put back counts again. For bulk jobs it reckons with as many newcomers in
        the other lane as of late, but never with more than they may overtake.
        """
        free = max(0, self.slots - self.running)
        if ahead < free:
            return 0.0
        if not self.slots or not self.turn:
            return None
        rate = self.slots / self.turn
        turns = ahead - free + 1
        match priority:
            case Priority.INTERACTIVE:
                return round((turns + min(self.bulk, turns // (BULK_SHARE - 1))) / rate, 1)
            case Priority.BULK:
                left = max(rate - self.interactive_rate, rate / BULK_SHARE)
                bulk_turns = max(1, min(turns, ahead - self.interactive + 1))
                return round(min(turns / left, bulk_turns * BULK_SHARE / rate), 1)
            case _:
                assert_never(priority)


class BacklogReader:
    """One per process. A look raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, ledger: Ledger) -> None:
        self._look = ledger.scripts.load("look")
        self._looking: asyncio.Task[Line] | None = None

    async def look(self) -> Line:
        """One round trip. Who asks while a look is on its way sees what it sees."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look_once())
        return await asyncio.shield(self._looking)  # One who goes away must not take it from the others.

    async def _look_once(self) -> Line:
        with translated():
            interactive, bulk, running, slots, turn, rate = await self._look(
                keys=[QUEUED, LEASES, WORKERS], args=[HEARTBEAT_TTL]
            )
        return Line(interactive, bulk, slots, running, float(turn) if turn else None, float(rate))

    async def with_wait(self, job: Job) -> Job:
        """The job with its estimated wait, if it waits."""
        if job.status is not JobStatus.QUEUED or job.queue_position is None:
            return job
        line = await self.look()
        return job.model_copy(update={"estimated_wait": line.wait(job.priority, job.queue_position - 1)})
