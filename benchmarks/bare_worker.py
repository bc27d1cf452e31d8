"""The same pipeline behind a bare `@app.task(acks_late=True)`: no ledger, no events, no gate. For `guarantees.py`.

`BARE_BROKER` names the Redis; it runs on Bunri's own pool, so that only the guarantees differ. The result goes where
Celery's backend would put it, one SET with a day to live. It sends Celery's task events as Bunri's worker does: Flower
must see both, and that is no guarantee.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
from celery import Celery

from pipeline.build import build_pipeline
from pipeline.run import Pipeline
from pipeline.settings import PipelineSettings
from pipeline.types import Checkpoints, JobInput, PipelineResult, StageEvent

QUEUE = "bare"
TASK = "bare.scan"
RESULT_PREFIX = "bare:result:"
READY = "bare:ready"
DAY = 86_400


class Nothing:
    """The pipeline's `emit` and `reuse` that do nothing."""

    async def __call__(self, *events: StageEvent) -> None:
        pass

    async def find(self, _fingerprint: str) -> PipelineResult | None:
        return None


class BareApp(Celery):  # type: ignore[misc]  # Celery ships no types
    drain = 5.0
    client: redis.Redis
    pipeline: Pipeline

    @asynccontextmanager
    async def lifespan(self, _concurrency: int) -> AsyncIterator[None]:
        self.client = redis.Redis.from_url(self.conf.broker_url)
        self.pipeline = build_pipeline(PipelineSettings())
        await self.client.set(READY, 1)
        yield
        await self.pipeline.close()
        await self.client.aclose()


def build() -> BareApp:
    app = BareApp("bare", broker=os.environ["BARE_BROKER"])
    app.conf.update(
        worker_pool="workers.runtime.pool:AsyncioPool",
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_ignore_result=True,
        task_default_queue=QUEUE,
    )
    nothing = Nothing()

    @app.task(name=TASK, acks_late=True)  # type: ignore[untyped-decorator]
    async def scan(job_id: str, image_url: str, user_input: str) -> None:
        job = JobInput(image_url=image_url, user_input=user_input)
        finished = await app.pipeline.run(job, resume=Checkpoints(), emit=nothing, reuse=nothing)
        await app.client.set(RESULT_PREFIX + job_id, finished.result.model_dump_json(), ex=DAY)

    return app


if __name__ == "__main__":
    build().start(sys.argv[1:])
