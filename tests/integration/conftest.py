"""Fixtures that need a real Redis."""

from collections.abc import AsyncIterator

import pytest

from tests.support.api_server import ApiServer, running_api
from workers.jobs.feed import Feed
from workers.jobs.ledger import Ledger
from workers.jobs.settings import JobsSettings


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
