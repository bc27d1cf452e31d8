"""Broker and ledger on two Redis servers, as docs/scaling.md advises where one is not enough. A real worker runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from jobs.broker.queue import JobQueue
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from tests.support.image_server import ImageServer
from tests.support.redis_server import RedisServer, start_redis
from tests.support.worker import PHOTO, ended, submit, working


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisServer]:
    server = start_redis(tmp_path)
    yield server
    server.stop()


async def keys(url: str) -> set[str]:
    async with Redis.from_url(url) as redis:
        return {bytes(key).decode() for key in cast("Any", await redis.keys("*"))}


async def test_jobs_are_in_one_and_messages_in_the_other(
    ledger: Ledger,
    feed: Feed,
    jobs_settings: JobsSettings,
    redis_url: str,
    broker: RedisServer,
    origin: ImageServer,
    model: ImageServer,
) -> None:
    queue = JobQueue.connect(jobs_settings.model_copy(update={"broker_url": SecretStr(broker.url)}))
    async with working(ledger, redis_url, model, BROKER_URL=broker.url):
        job = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        in_broker, in_ledger = await keys(broker.url), await keys(redis_url)
    await queue.close()
    assert job.status == "completed"
    assert not any(key.startswith("bunri:") for key in in_broker)
    assert not any(key.startswith("_kombu") for key in in_ledger)
    assert any(key.startswith("_kombu") for key in in_broker)


async def test_a_broker_that_is_lost_loses_no_job(
    ledger: Ledger,
    feed: Feed,
    jobs_settings: JobsSettings,
    redis_url: str,
    broker: RedisServer,
    origin: ImageServer,
    model: ImageServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ledger has it all: the sweep sends what an empty broker does not know."""
    monkeypatch.setattr("jobs.ledger.submissions.RESEND_AFTER", 1.0)
    monkeypatch.setattr("jobs.ledger.claims.RESEND_AFTER", 1.0)
    monkeypatch.setattr("jobs.ledger.upkeep.RESEND_AFTER", 1.0)
    queue = JobQueue.connect(jobs_settings.model_copy(update={"broker_url": SecretStr(broker.url)}))
    job_id = await submit(ledger, queue, origin.url(PHOTO))
    async with Redis.from_url(broker.url) as redis:
        await redis.flushall()
    async with working(ledger, redis_url, model, BROKER_URL=broker.url):
        job = await ended(feed, job_id)
    await queue.close()
    assert job.status == "completed"
