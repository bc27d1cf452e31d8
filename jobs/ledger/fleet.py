"""The ledger for everyone: live workers, and how many jobs wait, run and have ended."""

from typing import Any, cast

from jobs.ledger.connection import LedgerConnection
from jobs.model import WorkerBeat
from jobs.redis.connection import translated
from jobs.redis.keys import COUNTS, LEASES, QUEUED, WORKERS

MAX_WORKERS = 1000
"""Workers that are read."""


class Fleet:
    """Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, connection: LedgerConnection) -> None:
        self._client = connection.client

    async def depth(self) -> int:
        """Jobs that wait in the queue."""
        with translated():
            return int(await self._client.zcard(QUEUED))

    async def running(self) -> int:
        with translated():
            return int(await self._client.zcard(LEASES))

    async def counts(self) -> dict[str, int]:
        """Jobs ended since the ledger began, by `completed`, `cancelled` or `failed:<code>`."""
        with translated():
            counts = await cast("Any", self._client.hgetall(COUNTS))
        return {fate.decode(): int(count) for fate, count in counts.items()}

    async def workers(self, *, within: float = 15.0) -> list[WorkerBeat]:
        """Workers whose last heartbeat is at most `within` seconds old."""
        with translated():
            seconds, _ = await self._client.time()
            beats = await self._client.zrangebyscore(WORKERS, seconds - within, "+inf", start=0, num=MAX_WORKERS)
        return [WorkerBeat.model_validate_json(beat) for beat in cast("list[bytes]", beats)]

    async def beat(self, beat: WorkerBeat, *, instead_of: WorkerBeat | None = None, forget_after: float = 60.0) -> None:
        """Write a heartbeat. `instead_of`: this worker's previous one, which must not count as another worker.

        Heartbeats older than `forget_after` seconds are removed.
        """
        with translated():
            seconds, _ = await self._client.time()
            async with self._client.pipeline(transaction=True) as pipe:
                if instead_of is not None and instead_of != beat:
                    pipe.zrem(WORKERS, instead_of.model_dump_json())
                pipe.zadd(WORKERS, {beat.model_dump_json(): seconds})
                pipe.zremrangebyscore(WORKERS, "-inf", seconds - forget_after)
                await pipe.execute()

    async def depart(self, beat: WorkerBeat) -> None:
        """Remove a stopping worker's heartbeat, so that readiness need not wait until it is old."""
        with translated():
            await self._client.zrem(WORKERS, beat.model_dump_json())
