"""What a worker tells Flower of its tasks: all of it, several at a time, to the last."""

import asyncio
import base64
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator

import orjson
import pytest
from redis.asyncio import Redis

from jobs.broker.queue import JobQueue
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from tests.support.image_server import ImageServer
from tests.support.worker import PHOTO, ended, submit, working
from workers.runtime.consumer import EVENT_FLUSH_INTERVAL_SECONDS

JOBS = 6


@pytest.fixture
async def worker(ledger: Ledger, redis_url: str, model: ImageServer) -> AsyncIterator[subprocess.Popen[bytes]]:
    async with working(ledger, redis_url, model) as process:
        yield process


async def test_task_events_arrive_together_and_none_is_lost_when_the_worker_stops(
    worker: subprocess.Popen[bytes], ledger: Ledger, feed: Feed, queue: JobQueue, origin: ImageServer, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as listening:
        await listening.psubscribe("*celeryev/task.*")
        await listening.get_message(timeout=10.0)  # that it is subscribed
        began = time.monotonic()
        for _ in range(JOBS):
            await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        worker.terminate()
        await asyncio.to_thread(worker.wait)
        seconds = time.monotonic() - began
        told = Counter[str]()
        messages = 0
        while (message := await listening.get_message(timeout=1.0)) is not None:
            events = orjson.loads(base64.b64decode(orjson.loads(message["data"])["body"]))
            told.update(event["type"] for event in events)
            messages += 1
    assert told == {"task-received": JOBS, "task-started": JOBS, "task-succeeded": JOBS}
    assert messages <= seconds / EVENT_FLUSH_INTERVAL_SECONDS + 2
