"""A real worker process, jobs for it, and a model that answers when the test lets it."""

import asyncio
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import redis

from jobs.broker.queue import JobQueue
from jobs.errors import LedgerUnavailable
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.model import Job
from jobs.redis.keys import LEASES, WORKERS
from jobs.redis.keys import model as model_key
from pipeline.types import JobInput
from tests.support.image_server import Answer, ImageServer, Request
from tests.support.jobs import new_job
from tests.support.openai_server import base_url, well_behaved
from tests.support.wait import eventually, wait_until
from workers.command import worker_command

PHOTO = "/glass.jpg"
SLOTS = 8
"""Jobs that a worker of these tests works on at once, unless told otherwise."""


def start_worker(
    redis_url: str, model: ImageServer, index: int = 1, concurrency: int = SLOTS, **more: str
) -> subprocess.Popen[bytes]:
    env = {
        "REDIS_URL": redis_url,
        "FETCH_ALLOW": "127.0.0.1",
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": base_url(model),
        "WORKERS_LEASE": "3",
        "WORKERS_DRAIN": "1",
        **more,
    }
    # RabbitMQ gives a worker's name to one at a time, and other processes of xdist start workers, too.
    name = 100 * os.getpid() + index
    return subprocess.Popen(worker_command(name, concurrency), env=os.environ | env)


@asynccontextmanager
async def working(
    ledger: Ledger, redis_url: str, model: ImageServer, *, workers: int = 1, concurrency: int = SLOTS, **more: str
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Workers that have said that they live; the first of them. Killed in the end if they have not stopped by then."""
    processes = [start_worker(redis_url, model, index, concurrency, **more) for index in range(workers)]
    try:
        await eventually(lambda: _have_beaten(ledger, processes), within=120, every=0.1)
        yield processes[0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
        await ledger.client.delete(WORKERS)


@contextmanager
def worker_process(
    redis_url: str, model: ImageServer, *, concurrency: int, **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """As `working`, for fixtures that outlive a test's loop: one worker, on a Redis without others."""
    process = start_worker(redis_url, model, 1, concurrency, **more)
    with redis.Redis.from_url(redis_url) as client:
        try:
            wait_until(lambda: client.zcard(WORKERS) > 0, within=180, every=0.1)
            yield process
        finally:
            process.kill()
            process.wait()
            client.delete(WORKERS)


def let_rest(redis_url: str) -> None:
    """Between two tests that share a worker: it has no job left, and remembers no pause of a model.

    Fails the test whose job outlives it.
    """
    with redis.Redis.from_url(redis_url, socket_timeout=20) as client:
        wait_until(lambda: client.zcard(LEASES) == 0)
        paused = [key for key in client.scan_iter(match=model_key("*")) if client.hexists(key, "until")]
        for key in paused:
            client.delete(key)
            _wait_for_reports(client, key.decode())


def at_rest(model: ImageServer, redis_url: str) -> Iterator[ImageServer]:
    """For a fixture: the model of a shared worker, well-behaved and not yet asked for anything."""
    model.fallback = well_behaved
    model.requests.clear()
    yield model
    let_rest(redis_url)


def _wait_for_reports(client: redis.Redis, key: str) -> None:
    """The worker renews its copy of a model's state with each report. Two of them: one may have been on its way."""
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]  # not annotated
        reports = (each for each in monitor.listen() if each["client_type"] != "lua" and key in each["command"])
        next(reports)
        next(reports)


class Gate:
    """A model's `fallback` that answers well once the gate is open."""

    def __init__(self) -> None:
        self._is_open = threading.Event()

    def open(self) -> None:
        self._is_open.set()

    def __call__(self, request: Request) -> Answer:
        async def wait_first(writer: asyncio.StreamWriter) -> None:
            while not self._is_open.is_set():  # noqa: ASYNC110 - the test is on another loop
                await asyncio.sleep(0.01)
            await well_behaved(request)(writer)

        return wait_first


async def submit(ledger: Ledger, queue: JobQueue, url: str, *, deadline: float = 120.0, **asked: Any) -> str:
    job = new_job(deadline=deadline).model_copy(update={"input": JobInput(image_url=url, **asked)})
    await ledger.submissions.create(job)
    await queue.enqueue(job.job_id)
    return job.job_id


async def ended(feed: Feed, job_id: str, *, within: float = 90.0) -> Job:
    job = await feed.wait(job_id, within)
    assert job is not None
    assert job.status.is_final
    return job


async def _have_beaten(ledger: Ledger, processes: list[subprocess.Popen[bytes]]) -> bool:
    try:
        live = {int(beat.worker.rpartition(":")[2]) for beat in await ledger.fleet.workers()}
    except LedgerUnavailable:
        return False
    return live >= {process.pid for process in processes}
