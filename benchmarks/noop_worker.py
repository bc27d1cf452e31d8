"""A worker set up as Bunri's whose jobs do nothing: what Celery and the pool take for a message. For `floor.py`.

`REDIS_URL` names the Redis. A few times a second it tells there how many it has done.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
from celery import Celery

from jobs.broker.message import RUN_JOB
from jobs.broker.options import consumer_settings
from jobs.settings import JobsSettings
from workers.runtime import channel

DONE = "noop:done"
TELL_EVERY = 0.2


class NoopApp(Celery):  # type: ignore[misc]  # Celery ships no types
    drain = 1.0
    done = 0

    @asynccontextmanager
    async def lifespan(self, _concurrency: int) -> AsyncIterator[None]:
        telling = asyncio.create_task(self._tell())
        yield
        telling.cancel()

    async def _tell(self) -> None:
        async with redis.Redis.from_url(self.conf.broker_url) as client:
            while True:
                await client.set(DONE, self.done)
                await asyncio.sleep(TELL_EVERY)


def build() -> NoopApp:
    settings = JobsSettings()
    app = NoopApp("noop")
    app.conf.update(
        consumer_settings(settings, *settings.queues),
        worker_pool="workers.runtime.pool:AsyncioPool",
        worker_consumer="workers.runtime.consumer:Consumer",
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_default_queue=settings.queue,
        task_ignore_result=True,
        task_acks_late=True,
    )
    app.select_queues(settings.queues)
    channel.patch_kombu()

    @app.task(name=RUN_JOB)  # type: ignore[untyped-decorator]
    async def nothing(_job_id: str) -> None:
        app.done += 1

    return app


if __name__ == "__main__":
    build().start(sys.argv[1:])
