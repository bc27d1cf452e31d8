"""The queue on RabbitMQ, with the ledger on Redis.

Needs a RabbitMQ on 127.0.0.1:5672. Without one these tests are skipped with a warning; under CI=true they fail.
"""

import asyncio
import os
import signal
import socket
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu.connection import Connection
from pydantic import SecretStr

from jobs.broker.options import MAX_DELIVERIES, dead_letters
from jobs.broker.queue import JobQueue
from jobs.errors import QueueUnavailable
from jobs.feed.feed import Feed
from jobs.ids import new_job_id
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from tests.support.image_server import ImageServer, image_server, reply, silence
from tests.support.openai_server import late, openai_server, well_behaved
from tests.support.relay import relay
from tests.support.wait import eventually
from tests.support.worker import PHOTO, SLOTS, ended, submit, working

PORT = 5672


pytestmark = [
    pytest.mark.usefixtures("rabbitmq"),
    pytest.mark.timeout(300),  # Some start two workers one after the other.
]


@pytest.fixture(scope="module")
def rabbitmq() -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            return
    absent = f"no RabbitMQ answers on 127.0.0.1:{PORT}"
    if os.environ.get("CI") == "true":
        pytest.fail(absent)
    warnings.warn(f"{absent}: nothing tests the queue on RabbitMQ", stacklevel=1)
    pytest.skip(absent)


class Broker:
    """One RabbitMQ is there for all tests, so each has a queue of its own."""

    def __init__(self) -> None:
        self.queue = f"bunri.test.{uuid4().hex}"
        self.connection = Connection(url(PORT))

    def waiting(self, queue: str | None = None) -> int:
        """Messages that are ready, and not in a worker's hands."""
        return int(self.connection.default_channel.queue_declare(queue or self.queue, passive=True).message_count)

    def delete(self) -> None:
        for name in (self.queue, dead_letters(self.queue)):
            self.connection.default_channel.queue_delete(name)
            self.connection.default_channel.exchange_delete(name)
        self.connection.release()


def url(port: int) -> str:
    return f"amqp://guest:guest@127.0.0.1:{port}//"


@pytest.fixture
def broker(rabbitmq: None) -> Iterator[Broker]:
    del rabbitmq
    broker = Broker()
    yield broker
    broker.delete()


@pytest.fixture
def settings(jobs_settings: JobsSettings, broker: Broker) -> JobsSettings:
    return jobs_settings.model_copy(update={"broker_url": SecretStr(url(PORT)), "queue": broker.queue})


@pytest.fixture
async def queue(settings: JobsSettings) -> AsyncIterator[JobQueue]:
    queue = JobQueue.connect(settings)
    yield queue
    await queue.close()


@pytest.fixture
def model() -> Iterator[ImageServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
def photo(samples: Path) -> Iterator[str]:
    with image_server() as server:
        server.on(PHOTO, reply(200, (samples / "glass-1.jpg").read_bytes()))
        yield server.url(PHOTO)


def env(settings: JobsSettings) -> dict[str, Any]:  # Any: passed on as keywords, of which others are numbers
    return {"BROKER_URL": settings.broker, "WORKERS_QUEUE": settings.queue, "RESULT_CACHE_TTL": "0"}


async def is_empty(broker: Broker) -> bool:
    return broker.waiting() == 0


async def test_a_killed_workers_jobs_are_finished_by_the_next_and_nothing_stays_in_the_queue(
    ledger: Ledger,
    feed: Feed,
    queue: JobQueue,
    redis_url: str,
    broker: Broker,
    settings: JobsSettings,
    photo: str,
    model: ImageServer,
) -> None:
    model.fallback = lambda _request: silence()
    async with working(ledger, redis_url, model, **env(settings)) as first:
        ids = [await submit(ledger, queue, photo, user_input=str(n)) for n in range(SLOTS + 2)]
        await eventually(lambda: _has_asked(model, SLOTS))
        assert broker.waiting() == 2
        first.kill()
        first.wait()
    model.fallback = well_behaved
    async with working(ledger, redis_url, model, **env(settings)) as second:
        jobs = [await ended(feed, job_id) for job_id in ids]
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=20) == 0
    assert {job.status for job in jobs} == {"completed"}
    await eventually(lambda: is_empty(broker))


async def test_jobs_that_a_stopping_worker_gives_back_are_taken_at_once_by_the_next(
    ledger: Ledger,
    feed: Feed,
    queue: JobQueue,
    redis_url: str,
    broker: Broker,
    settings: JobsSettings,
    photo: str,
    model: ImageServer,
) -> None:
    model.fallback = lambda _request: silence()
    async with working(ledger, redis_url, model, **env(settings)) as first:
        job_id = await submit(ledger, queue, photo)
        await eventually(lambda: _has_asked(model, 1))
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=20) == 0
    await eventually(lambda: _has_waiting(broker, 1))
    model.fallback = well_behaved
    async with working(ledger, redis_url, model, **env(settings)):
        assert (await ended(feed, job_id)).status == "completed"


async def test_jobs_end_although_every_connection_to_the_broker_breaks_again_and_again(
    ledger: Ledger,
    feed: Feed,
    redis_url: str,
    settings: JobsSettings,
    photo: str,
    model: ImageServer,
) -> None:
    model.fallback = lambda request: late(well_behaved(request), 0.3)
    async with relay(PORT) as wire:
        settings = settings.model_copy(update={"broker_url": SecretStr(url(wire.port))})
        queue = JobQueue.connect(settings)
        async with working(ledger, redis_url, model, **env(settings)) as process:
            ids = []
            for number in range(4):
                try:
                    ids += [await submit(ledger, queue, photo, user_input=f"{number} {n}") for n in range(5)]
                except QueueUnavailable:
                    pytest.fail("the connection had broken between two messages, and was not opened anew")
                wire.reset()
            jobs = await asyncio.gather(*(ended(feed, job_id, within=60) for job_id in ids))
            assert process.poll() is None
        await queue.close()
    assert {job.status for job in jobs} == {"completed"}
    assert {job.attempts for job in jobs} == {1}


async def test_a_message_that_nobody_keeps_is_laid_aside(queue: JobQueue, broker: Broker) -> None:
    """Its job is the ledger's: the sweep sends it again, or ends it at its deadline."""
    await queue.enqueue(new_job_id())
    for _ in range(MAX_DELIVERIES + 1):
        message = broker.connection.default_channel.basic_get(broker.queue)
        while message is None:
            await asyncio.sleep(0.01)
            message = broker.connection.default_channel.basic_get(broker.queue)
        broker.connection.default_channel.basic_reject(message.delivery_tag, requeue=True)
    await eventually(lambda: _is_laid_aside(broker))
    assert broker.waiting() == 0


async def test_a_ping_tells_whether_the_broker_answers(queue: JobQueue) -> None:
    await queue.ping()


async def _is_laid_aside(broker: Broker) -> bool:
    return broker.waiting(dead_letters(broker.queue)) == 1


async def _has_waiting(broker: Broker, count: int) -> bool:
    return broker.waiting() == count


async def _has_asked(model: ImageServer, count: int) -> bool:
    return len(model.requests) >= count
