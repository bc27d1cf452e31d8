"""The api behind a real socket, in the test's own event loop, with a client and a worker played by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx
import uvicorn
from fastapi import FastAPI

from api.app import build_app
from api.deps import Services
from api.settings import ApiSettings
from jobs.ledger.ledger import Ledger
from jobs.model import Claim
from jobs.redis.keys import QUEUED
from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.wait import eventually


@dataclass
class ApiServer:
    app: FastAPI
    client: httpx.AsyncClient

    @property
    def origin(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services


@asynccontextmanager
async def running_api(
    jobs: JobsSettings, *, pipeline: PipelineSettings | None = None, **settings: object
) -> AsyncIterator[ApiServer]:
    """Serve until the block ends. `settings` are fields of ApiSettings."""
    app = build_app(ApiSettings.model_validate(settings), jobs, pipeline or PipelineSettings.model_validate({}))
    async with serving(app) as server:
        yield server


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[ApiServer]:
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: _has_started(server, task))
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=NO_CERTIFICATES) as client:
            yield ApiServer(app, client)
    finally:
        server.should_exit = True
        await task


async def _has_started(server: uvicorn.Server, task: asyncio.Task[None]) -> bool:
    assert not task.done(), "the server ended while starting"
    return server.started


async def first_claim(ledger: Ledger) -> Claim:
    """Play the worker: wait for a job and claim it."""
    await eventually(lambda: _has_jobs(ledger))
    waiting = await cast("Any", ledger.client.zrange(QUEUED, 0, 0))
    claim = await ledger.claims.claim(waiting[0].decode())
    assert claim
    return claim


async def _has_jobs(ledger: Ledger) -> bool:
    return await ledger.fleet.depth() > 0
