"""Whoever submits jobs to a worker, a process of its own: `python -m benchmarks.peers.driver bunri|taskiq|celery`.

So many users each submit a job, wait until a stream in Redis says that it has ended, and start again. After the first
job, which shows that the worker is there, and a warm-up it prints a line; one more when the window ends; then what
the jobs of the window took, as JSON.
"""

import argparse
import asyncio
import importlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis.asyncio as redis
import uvloop

from benchmarks.peers.call import DONE, QUESTION, redis_url
from jobs.broker.queue import JobQueue
from jobs.ids import new_job_id
from jobs.ledger.ledger import Ledger
from jobs.redis.keys import FEED
from jobs.settings import JobsSettings
from tests.support.jobs import new_job

FIRST_WITHIN = 60.0
READ_MS = 1000
MOST_READ = 1000

Submit = Callable[[str], Awaitable[object]]


@dataclass
class Found:
    """Seconds of each job that ended within the window."""

    waited: list[float] = field(default_factory=list)


SETTLE = 2.0
"""Seconds in which its CPU is read before it ends."""


class Driver:
    def __init__(self, client: redis.Redis, submit: Submit, stream: str) -> None:
        self._client = client
        self._submit = submit
        self._stream = stream
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self.window = (0.0, 0.0)
        self.found = Found()

    async def one(self) -> None:
        job_id = new_job_id()
        ended = self._waiting[job_id.encode()] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        await self._submit(job_id)
        await ended
        now = time.monotonic()
        if self.window[0] <= now < self.window[1]:
            self.found.waited.append(now - began)

    async def user(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            await self.one()

    async def read(self) -> None:
        place: Any = b"0-0"
        while True:
            reply: Any = await self._client.xread({self._stream: place}, count=MOST_READ, block=READ_MS)
            for _, entries in reply:
                for _, fields in entries:
                    if b'"stage":"done"' in fields.get(b"event", b'"stage":"done"'):
                        self._end(fields[b"job"], fields.get(b"event", b""))
                place = entries[-1][0]

    def _end(self, job_id: bytes, event: bytes) -> None:
        ended = self._waiting.pop(job_id, None)
        if ended is None:
            return
        if event and b'"outcome":"completed"' not in event:
            ended.set_exception(RuntimeError(event.decode()))
        else:
            ended.set_result(None)


def submit_to(system: str) -> tuple[Submit, str]:
    """How to submit a job, and the stream that says when it has ended."""
    settings = JobsSettings.model_validate({"redis_url": redis_url()})
    if system == "taskiq":
        peer: Any = importlib.import_module("benchmarks.peers.with_taskiq")

        async def kick(job_id: str) -> None:
            await peer.ask.kiq(job_id)

        return kick, DONE
    queue = JobQueue.connect(settings)
    if system == "celery":
        return queue.enqueue, DONE
    ledger = Ledger.connect(settings)

    async def submit(job_id: str) -> None:
        job = new_job(image_url="", user_input=QUESTION, deadline=120)
        await ledger.submissions.create(job.model_copy(update={"job_id": job_id}))
        await queue.enqueue(job_id)

    return submit, FEED


async def run(options: argparse.Namespace) -> None:
    if options.system == "taskiq":
        await importlib.import_module("benchmarks.peers.with_taskiq").broker.startup()
    async with redis.Redis.from_url(redis_url()) as client:
        driver = Driver(client, *submit_to(options.system))
        reader = asyncio.create_task(driver.read())
        async with asyncio.timeout(FIRST_WITHIN):
            await driver.one()
        ramp = options.warm_up / 2
        users = [asyncio.create_task(driver.user(ramp * number / options.users)) for number in range(options.users)]
        driver.window = (begins := time.monotonic() + options.warm_up, begins + options.seconds)
        await asyncio.sleep(options.warm_up)
        print("begins", flush=True)
        await asyncio.sleep(options.seconds)
        print("ends", flush=True)
        await asyncio.sleep(SETTLE)
        broken = [each for each in (reader, *users) if each.done()]
        if broken:
            raise RuntimeError(f"{len(broken)} tasks ended early: {broken[0].exception()}")
        print(orjson.dumps(driver.found).decode(), flush=True)
        # A user that is cancelled while redis-py writes may never end (asyncio.wait_for of Python 3.11).
        os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("system", choices=("bunri", "taskiq", "celery"))
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--warm-up", type=float, default=8.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
