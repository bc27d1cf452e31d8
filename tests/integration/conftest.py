"""Fixtures that need a real Redis."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobs.broker.queue import JobQueue
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from tests.support.api_server import ApiServer, running_api
from tests.support.image_server import ImageServer, image_server, reply
from tests.support.openai_server import openai_server
from tests.support.worker import PHOTO


@pytest.fixture
def jobs_settings(redis_url: str) -> JobsSettings:
    return JobsSettings.model_validate({"redis_url": redis_url, "lease": 1.0})


@pytest.fixture
async def ledger(jobs_settings: JobsSettings) -> AsyncIterator[Ledger]:
    ledger = Ledger.connect(jobs_settings)
    yield ledger
    await ledger.close()


@pytest.fixture
async def feed(ledger: Ledger) -> AsyncIterator[Feed]:
    feed = Feed(ledger)
    await feed.start()
    yield feed
    await feed.close()


@pytest.fixture
async def api(jobs_settings: JobsSettings) -> AsyncIterator[ApiServer]:
    async with running_api(jobs_settings) as api:
        yield api


@pytest.fixture
def origin(samples: Path) -> Iterator[ImageServer]:
    """Has one photo, at PHOTO."""
    with image_server() as server:
        server.on(PHOTO, reply(200, (samples / "glass-1.jpg").read_bytes()))
        yield server


@pytest.fixture
def model() -> Iterator[ImageServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
async def queue(jobs_settings: JobsSettings) -> AsyncIterator[JobQueue]:
    queue = JobQueue.connect(jobs_settings)
    yield queue
    await queue.close()
