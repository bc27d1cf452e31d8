"""The line of waiting jobs: how many stand ahead of one, and how long that takes at the pace of the fleet."""

from dataclasses import dataclass
from math import exp
from typing import assert_never

from workers.jobs.connection import translated
from workers.jobs.ledger import BULK_BEHIND, LEASES, PACE, QUEUED, WORKERS, Ledger
from workers.jobs.model import Job, JobStatus, Priority, WorkerBeat

BULK_TURN = 8
"""While both lanes have jobs, one turn in so many is a bulk job's (`workers/broker.py`)."""

MEMORY = 30.0
"""Seconds after which what the fleet did counts for a third; the scripts' prelude has it, too."""

BEAT_LASTS = 15.0
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
                return round((turns + min(self.bulk, turns // (BULK_TURN - 1))) / rate, 1)
            case Priority.BULK:
                left = max(rate - self.interactive_rate, rate / BULK_TURN)
                bulk_turns = max(1, min(turns, ahead - self.interactive + 1))
                return round(min(turns / left, bulk_turns * BULK_TURN / rate), 1)
            case _:
                assert_never(priority)


async def look(ledger: Ledger) -> Line:
    """One round trip. Raises LedgerUnavailable."""
    with translated():
        async with ledger.client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zcard(QUEUED)
            pipe.zcount(QUEUED, BULK_BEHIND, "+inf")
            pipe.zcard(LEASES)
            pipe.hmget(PACE, "at", "seconds", "turns", "interactive")
            pipe.zrange(WORKERS, 0, -1, withscores=True)
            (seconds, _), waiting, bulk, running, pace, beats = await pipe.execute()
    at, busy, turns, interactive = (float(value or 0) for value in pace)
    return Line(
        interactive=waiting - bulk,
        bulk=bulk,
        slots=sum(_slots(beat) for beat, said_at in beats if said_at >= seconds - BEAT_LASTS),
        running=running,
        turn=busy / turns if turns else None,
        interactive_rate=interactive * exp(min(0.0, at - seconds) / MEMORY) / MEMORY,
    )


async def with_wait(job: Job, ledger: Ledger) -> Job:
    """The job with its estimated wait, if it waits. Raises LedgerUnavailable."""
    if job.status is not JobStatus.QUEUED or job.queue_position is None:
        return job
    line = await look(ledger)
    return job.model_copy(update={"estimated_wait": line.wait(job.priority, job.queue_position - 1)})


def _slots(beat: bytes) -> int:
    return WorkerBeat.model_validate_json(beat).concurrency
