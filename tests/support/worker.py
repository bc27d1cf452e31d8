"""A real worker process for tests, and a model that answers when the test lets it."""

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests.support.image_server import Answer, ImageServer, Request
from tests.support.openai_server import base_url, well_behaved
from tests.support.wait import wait_until
from workers.command import worker_command
from workers.jobs.ledger import WORKERS


@contextmanager
def worker_process(
    redis_url: str, model: ImageServer, *, concurrency: int = 8, **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that has said that it lives, on a Redis without others. Killed in the end, and its beat with it."""
    env = {
        "REDIS_URL": redis_url,
        "FETCH_ALLOW": "127.0.0.1",
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": base_url(model),
        "WORKERS_LEASE": "3",
        "WORKERS_DRAIN": "1",
        **more,
    }
    process = subprocess.Popen(worker_command(1, concurrency), env=os.environ | env)
    with redis.Redis.from_url(redis_url) as client:
        try:
            wait_until(lambda: client.zcard(WORKERS) > 0, within=180)
            yield process
        finally:
            process.kill()
            process.wait()
            client.delete(WORKERS)


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
