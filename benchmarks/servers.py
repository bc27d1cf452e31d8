"""Servers that a benchmark asks: Redis, the API without a worker, and a bare one to compare it with."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.processes import Process, started
from tests.support.redis_server import RedisServer, free_port, start_redis
from tests.support.wait import eventually

START_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """Listening on 127.0.0.1."""

    name: str
    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def redis_server() -> AsyncIterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@asynccontextmanager
async def api_server(redis_url: str, **env: str) -> AsyncIterator[Server]:
    """`python -m api`, ready. Takes any number of jobs and logs warnings only, unless told otherwise."""
    port = free_port()
    common = {"REDIS_URL": redis_url, "API_PORT": str(port), "API_MAX_QUEUED": "1000000", "LOG_LEVEL": "WARNING"}
    async with started("api", env=common | env, heard=False) as process:
        await _ready(port)
        yield Server("bunri", port, process)


@asynccontextmanager
async def bare_server(redis_url: str) -> AsyncIterator[Server]:
    """`benchmarks.bare_api`, ready."""
    port = free_port()
    async with started("benchmarks.bare_api", str(port), redis_url, heard=False) as process:
        await _ready(port)
        yield Server("bare", port, process)


async def _ready(port: int) -> None:
    async with aiohttp.ClientSession() as http:

        async def is_healthy() -> bool:
            try:
                async with http.get(f"http://127.0.0.1:{port}/healthz") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await eventually(is_healthy, within=START_SECONDS)
