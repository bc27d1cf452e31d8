"""A real worker process, and jobs to give it."""

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pipeline.types import JobInput
from tests.support.image_server import ImageServer
from tests.support.jobs import new_job
from tests.support.openai_server import base_url
from tests.support.wait import eventually
from workers.command import worker_command
from workers.jobs.connection import LedgerUnavailable
from workers.jobs.feed import Feed
from workers.jobs.ledger import WORKERS, Ledger
from workers.jobs.model import Job
from workers.jobs.queue import JobQueue

PHOTO = "/glass.jpg"
SLOTS = 8


def start_worker(redis_url: str, model: ImageServer, **more: str) -> subprocess.Popen[bytes]:
    env = {
        "REDIS_URL": redis_url,
        "FETCH_ALLOW": "127.0.0.1",
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": base_url(model),
        "WORKERS_LEASE": "3",
        "WORKERS_DRAIN": "1",
        **more,
    }
    return subprocess.Popen(worker_command(1, SLOTS), env=os.environ | env)


@asynccontextmanager
async def working(
    ledger: Ledger, redis_url: str, model: ImageServer, **more: str
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A worker that has said that it lives. Killed in the end if it has not stopped by then."""
    process = start_worker(redis_url, model, **more)
    try:
        await eventually(lambda: _has_beat(ledger, process), within=60)
        yield process
    finally:
        process.kill()
        process.wait()
        await ledger.client.delete(WORKERS)


async def _has_beat(ledger: Ledger, process: subprocess.Popen[bytes]) -> bool:
    try:
        return any(beat.worker.endswith(f":{process.pid}") for beat in await ledger.workers())
    except LedgerUnavailable:
        return False


async def submit(ledger: Ledger, queue: JobQueue, url: str, **asked: Any) -> str:
    job = new_job(deadline=120.0).model_copy(update={"input": JobInput(image_url=url, **asked)})
    await ledger.create(job)
    await queue.enqueue(job.job_id)
    return job.job_id


async def ended(feed: Feed, job_id: str, within: float = 30) -> Job:
    job = await feed.wait(job_id, within)
    assert job is not None
    assert job.status.is_final
    return job
