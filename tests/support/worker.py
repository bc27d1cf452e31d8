"""A real worker process for tests, and a model that answers when the test lets it."""

import asyncio
import os
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.image_server import Answer, ImageServer, Request
from tests.support.openai_server import base_url, well_behaved
from tests.support.wait import eventually
from workers.command import worker_command
from workers.jobs.ledger import Ledger


@asynccontextmanager
async def working(
    ledger: Ledger, redis_url: str, model: ImageServer, *, concurrency: int = 8, **more: str
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A worker that has said that it lives. Killed in the end."""
    env = {
        "REDIS_URL": redis_url,
        "FETCH_ALLOW": "127.0.0.1",
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": base_url(model),
        "WORKERS_LEASE": "3",
        "WORKERS_DRAIN": "1",
        **more,
    }
    process = subprocess.Popen(worker_command(1, concurrency), env=os.environ | env)  # noqa: ASYNC220 - it only forks
    try:
        await eventually(lambda: _has_worker(ledger), within=60)
        yield process
    finally:
        process.kill()
        process.wait()
        await ledger.client.delete("bunri:workers")


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


async def _has_worker(ledger: Ledger) -> bool:
    return bool(await ledger.workers())
