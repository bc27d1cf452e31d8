"""In which order a real worker takes jobs of the two lanes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from jobs.backlog import BacklogReader
from jobs.broker.queue import JobQueue
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.model import Priority
from jobs.redis.keys import OUTBOX
from jobs.settings import JobsSettings
from pipeline.types import JobInput
from tests.support.image_server import ImageServer, image_server, reply
from tests.support.jobs import new_job
from tests.support.openai_server import openai_server
from tests.support.wait import eventually
from tests.support.worker import Gate, worker_process

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


@pytest.fixture
def photo(samples: Path) -> Iterator[str]:
    with image_server() as origin:
        yield origin.on("/glass.jpg", reply(200, (samples / "glass-1.jpg").read_bytes()))


@pytest.fixture
def model() -> Iterator[ImageServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
async def queue(jobs_settings: JobsSettings) -> AsyncIterator[JobQueue]:
    queue = JobQueue.connect(jobs_settings)
    yield queue
    await queue.close()


async def submit(ledger: Ledger, queue: JobQueue, photo: str, priority: Priority) -> str:
    job = new_job(priority=priority).model_copy(update={"input": JobInput(image_url=photo)})
    await ledger.submissions.create(job)
    await queue.enqueue(job.job_id, priority)
    return job.job_id


async def test_interactive_jobs_overtake_a_backlog_of_bulk_which_still_moves(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, photo: str, model: ImageServer
) -> None:
    """One slot, which the first bulk job holds until both lanes are full."""
    gate = model.fallback = Gate()
    with worker_process(redis_url, model, concurrency=1):
        ids = [await submit(ledger, queue, photo, BULK)]
        await eventually(lambda: _has_asked(model))
        ids += [await submit(ledger, queue, photo, BULK) for _ in range(5)]
        ids += [await submit(ledger, queue, photo, INTERACTIVE) for _ in range(20)]
        await ledger.client.delete(OUTBOX)  # A second message would take a turn, too.
        line = await BacklogReader(ledger).read()
        assert (line.interactive, line.bulk, line.running, line.slots) == (20, 5, 1, 1)
        gate.open()
        jobs = [await feed.wait(job_id, 60) for job_id in ids]
        assert [job and job.status for job in jobs] == ["completed"] * 26
        assert (await BacklogReader(ledger).read()).mean_service_time
    claimed = [job.priority for job in sorted((job for job in jobs if job), key=lambda job: job.started_at or 0)]
    assert claimed == [BULK, *[INTERACTIVE] * 7, BULK, *[INTERACTIVE] * 7, BULK, *[INTERACTIVE] * 6, *[BULK] * 3]


async def test_a_worker_takes_no_more_than_it_has_room_for(
    ledger: Ledger, queue: JobQueue, jobs_settings: JobsSettings, redis_url: str, photo: str, model: ImageServer
) -> None:
    """Though one request to the broker brings several messages. What it leaves is another's to take."""
    gate = model.fallback = Gate()
    for _ in range(12):
        await submit(ledger, queue, photo, INTERACTIVE)
    waiting = jobs_settings.queue_of(INTERACTIVE)
    with worker_process(redis_url, model, concurrency=7):
        await eventually(lambda: _are_running(ledger, 7))
        assert await cast("Any", ledger.client.llen(waiting)) == 5
        gate.open()
        await eventually(lambda: _have_completed(ledger, 12))


async def _are_running(ledger: Ledger, count: int) -> bool:
    return await ledger.fleet.running() == count


async def _have_completed(ledger: Ledger, count: int) -> bool:
    return await ledger.fleet.counts() == {"completed": count}


async def _has_asked(model: ImageServer) -> bool:
    return bool(model.requests)
