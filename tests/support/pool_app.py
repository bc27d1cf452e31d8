"""A Celery worker on the asyncio pool with tasks of its own: `python -m tests.support.pool_app worker …`.

Its tasks write what happened to them into Redis, where a test reads it.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
from celery import Celery
from celery.exceptions import Reject

QUEUE = "pool"


class PoolApp(Celery):  # type: ignore[misc]  # Celery ships no types
    drain = 0.5

    @asynccontextmanager
    async def lifespan(self, _concurrency: int) -> AsyncIterator[None]:
        self.log = redis.Redis.from_url(self.conf.broker_url)
        await self.log.rpush("seen", "open")
        yield
        await self.log.rpush("seen", "close")
        await self.log.aclose()


def build() -> PoolApp:
    app = PoolApp("pool", broker=os.environ["BROKER"])
    app.conf.update(
        worker_pool="workers.runtime.pool:AsyncioPool",
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        task_ignore_result=True,
        task_default_queue=QUEUE,
    )

    @app.task(name="meet")  # type: ignore[untyped-decorator]
    async def meet(count: int) -> None:
        """Ends only when `count` tasks are in it at the same time."""
        await app.log.incr("present")
        while int(await app.log.get("present") or 0) < count:  # noqa: ASYNC110 - the others are seen in Redis only
            await asyncio.sleep(0.01)
        await app.log.rpush("seen", "met")

    @app.task(name="break")  # type: ignore[untyped-decorator]
    async def fail() -> None:
        raise ValueError("meant")

    @app.task(name="hang")  # type: ignore[untyped-decorator]
    async def hang() -> None:
        await app.log.rpush("seen", "hanging")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await app.log.rpush("seen", "released")
            raise Reject(requeue=True) from None

    return app


if __name__ == "__main__":
    build().start(sys.argv[1:])
