"""The way into the queue, against a real Redis as broker."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from celery import Celery

from jobs.broker import message
from jobs.broker.message import RUN_JOB, JobMessage
from jobs.broker.queue import JobQueue
from jobs.errors import QueueUnavailable
from jobs.ids import job_born_at, new_job_id
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from tests.support.redis_server import RedisServer


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    queue = JobQueue.connect(JobsSettings.model_validate({"redis_url": redis_url, "redis_timeout": 1.0}))
    yield queue
    await queue.close()


async def test_each_message_carries_the_job_id_and_nothing_else(queue: JobQueue, ledger: Ledger) -> None:
    job_ids = [new_job_id() for _ in range(50)]
    await asyncio.gather(*map(queue.enqueue, job_ids))
    messages = [await ledger.client.lindex("bunri.jobs", place) for place in range(50)]
    for job_id, sent in zip(job_ids, reversed(messages), strict=True):
        assert isinstance(sent, bytes)
        assert job_id.encode() in sent
        assert b"http" not in sent


async def test_a_message_is_what_celery_itself_sends(queue: JobQueue, redis_url: str, ledger: Ledger) -> None:
    job_id = new_job_id()
    app = Celery("bunri", broker=redis_url, set_as_current=False)
    app.conf.update(task_default_queue="bunri.jobs", task_ignore_result=True)
    with app.connection_for_write() as connection:
        await asyncio.to_thread(app.send_task, RUN_JOB, (job_id,), task_id=job_id, connection=connection)
    await queue.enqueue(job_id)
    await queue.enqueue(job_id)
    first, second, theirs = [orjson.loads(each) for each in await ledger.client.lrange("bunri.jobs", 0, -1)]
    tags = {each["properties"].pop("delivery_tag") for each in (first, second, theirs)}
    assert len(tags) == 3
    for each in (first, second, theirs):
        del each["properties"]["reply_to"]  # of the application, not of the message
    assert first == second == theirs


def test_a_celery_that_writes_an_id_elsewhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = message._written
    monkeypatch.setattr(message, "_written", lambda app, job_id: written(app, job_id) + job_id.replace("-", ""))
    with pytest.raises(RuntimeError):
        JobMessage("bunri.jobs")


async def test_a_silent_broker_is_queue_unavailable_and_the_loop_goes_on(
    queue: JobQueue, redis_server: RedisServer
) -> None:
    await queue.enqueue(new_job_id())
    redis_server.pause()
    try:
        ticks = 0
        sending = asyncio.create_task(queue.enqueue(new_job_id()))
        while not sending.done():
            await asyncio.sleep(0.05)
            ticks += 1
        with pytest.raises(QueueUnavailable):
            await sending
        assert ticks > 5
    finally:
        redis_server.resume()


async def test_the_queue_works_again_after_the_broker_came_back(queue: JobQueue, redis_server: RedisServer) -> None:
    await queue.enqueue(new_job_id())
    redis_server.kill()
    with pytest.raises(QueueUnavailable):
        await queue.enqueue(new_job_id())
    redis_server.restart()
    await queue.enqueue(new_job_id())


async def test_a_redis_that_takes_no_message_is_queue_unavailable(queue: JobQueue, ledger: Ledger) -> None:
    await ledger.client.set("bunri.jobs", "no list")
    with pytest.raises(QueueUnavailable):
        await queue.enqueue(new_job_id())
    await ledger.client.delete("bunri.jobs")


async def test_a_ping_tells_whether_the_broker_answers(queue: JobQueue, redis_server: RedisServer) -> None:
    await queue.ping()
    redis_server.pause()
    try:
        with pytest.raises(QueueUnavailable):
            await queue.ping()
    finally:
        redis_server.resume()


def test_a_job_id_says_when_it_was_made() -> None:
    assert job_born_at(new_job_id()) is not None
    for other in ("", "x", "6f1b1c1e-8f3e-4f4e-9b1e-0a1b2c3d4e5f", new_job_id().upper(), new_job_id() + "0"):
        assert job_born_at(other) is None
