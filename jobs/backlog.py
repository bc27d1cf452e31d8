"""The backlog of waiting jobs: how many are ahead of one, and how long it waits at the fleet's mean service time."""

import asyncio
from dataclasses import dataclass
from typing import assert_never

from jobs.ledger.connection import LedgerConnection
from jobs.model import Job, JobStatus, Priority
from jobs.redis.connection import translated

BULK_SHARE = 8
"""While both lanes have jobs, one in so many that are served is a bulk job (`workers/runtime/channel.py`)."""

HEARTBEAT_TTL = 15.0
"""Seconds after its last heartbeat in which a worker counts as live."""


@dataclass(frozen=True)
class Backlog:
    """The waiting jobs, and the fleet that serves them, at one moment.

    `mean_service_time`: seconds that a job has lately held its slot, None when unknown. `interactive_rate`: interactive
    jobs a second that the fleet has lately served.
    """

    interactive: int
    bulk: int
    slots: int
    running: int
    mean_service_time: float | None
    interactive_rate: float = 0.0

    def jobs_ahead(self, priority: Priority) -> int:
        """Jobs that would be served before one that joins now."""
        match priority:
            case Priority.INTERACTIVE:
                return self.interactive
            case Priority.BULK:
                return self.interactive + self.bulk
            case _:
                assert_never(priority)

    def wait(self, priority: Priority, jobs_ahead: int) -> float | None:
        """Seconds until a job behind `jobs_ahead` others gets a slot; 0 when one is free for it, None when unknown.

        It counts services, so a job that is put back counts again. For bulk jobs it assumes as many newcomers in the
        interactive lane as of late, but never more than may overtake them.
        """
        free = max(0, self.slots - self.running)
        if jobs_ahead < free:
            return 0.0
        if not self.slots or not self.mean_service_time:
            return None
        rate = self.slots / self.mean_service_time
        services = jobs_ahead - free + 1
        match priority:
            case Priority.INTERACTIVE:
                return round((services + min(self.bulk, services // (BULK_SHARE - 1))) / rate, 1)
            case Priority.BULK:
                left = max(rate - self.interactive_rate, rate / BULK_SHARE)
                bulk_services = max(1, min(services, jobs_ahead - self.interactive + 1))
                return round(min(services / left, bulk_services * BULK_SHARE / rate), 1)
            case _:
                assert_never(priority)


class BacklogReader:
    """One per process. Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, ledger: LedgerConnection) -> None:
        self._backlog = ledger.scripts.load("backlog")
        self._reading: asyncio.Task[Backlog] | None = None

    async def read(self) -> Backlog:
        """One round trip. Concurrent callers share the request in flight."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read_once())
        return await asyncio.shield(self._reading)  # A cancelled caller must not cancel it for the others.

    async def _read_once(self) -> Backlog:
        with translated():
            interactive, bulk, running, slots, mean, rate = await self._backlog(heartbeat_ttl=HEARTBEAT_TTL)
        return Backlog(interactive, bulk, slots, running, float(mean) if mean else None, float(rate))

    async def with_wait(self, job: Job) -> Job:
        """The job with its estimated wait, if it waits."""
        if job.status is not JobStatus.QUEUED or job.queue_position is None:
            return job
        backlog = await self.read()
        return job.model_copy(update={"estimated_wait": backlog.wait(job.priority, job.queue_position - 1)})
