"""A real worker process, shared by these tests: jobs over a real Redis, from a real origin, through a real SDK."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import orjson
import pytest

from jobs.broker.queue import JobQueue
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from tests.support import image_server as origin_answers
from tests.support.image_server import Answer, ImageServer, Request
from tests.support.openai_server import late, openai_server, problem, purpose_of, refusal, well_behaved
from tests.support.redis_server import RedisServer, closed_port, start_redis
from tests.support.wait import eventually
from tests.support.worker import PHOTO, SLOTS, at_rest, ended, submit, worker_process


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Of the shared worker alone."""
    server = start_redis(tmp_path_factory.mktemp("shared"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _serving(redis_server: RedisServer) -> Iterator[ImageServer]:
    """The model of a worker that is started once."""
    with openai_server() as model, worker_process(redis_server.url, model, concurrency=SLOTS):
        yield model


@pytest.fixture(autouse=True)  # Each test of this file may be the first, and needs the worker.
def model(_serving: ImageServer, redis_url: str) -> Iterator[ImageServer]:
    yield from at_rest(_serving, redis_url)


async def settled(ledger: Ledger) -> bool:
    """No message waits and no job runs."""
    return await ledger.fleet.running() == 0 and int(await cast("Any", ledger.client.llen("bunri.jobs"))) == 0


async def _has_asked(model: ImageServer, purpose: str) -> bool:
    return any(purpose_of(request) == purpose for request in model.requests)


async def test_a_job_passes_every_stage_once_and_pays_for_two_calls(
    ledger: Ledger, feed: Feed, queue: JobQueue, origin: ImageServer, model: ImageServer
) -> None:
    job_id = await submit(ledger, queue, origin.url(PHOTO))
    job = await ended(feed, job_id)
    assert job.result is not None
    assert job.result.rule.category == "유리병"
    assert (job.usage.output_tokens, job.model) == (200, "gpt-5.6-terra")
    assert [purpose_of(request) for request in model.requests] == ["vision", "answer"]
    events = [orjson.loads(event.data) for event in await ledger.submissions.events(job_id)]
    assert [(event["stage"], event["status"]) for event in events] == [
        ("queued", "completed"),
        *((stage, status) for stage in ("fetch", "vision", "rule", "answer") for status in ("started", "completed")),
        ("reward", "skipped"),
        ("done", "completed"),
    ]
    assert [event["progress"] for event in events] == sorted(event["progress"] for event in events)
    await eventually(lambda: settled(ledger))


async def test_a_message_that_comes_twice_runs_the_job_once(
    ledger: Ledger, feed: Feed, queue: JobQueue, origin: ImageServer, model: ImageServer
) -> None:
    job_id = await submit(ledger, queue, origin.url(PHOTO))
    await queue.enqueue(job_id)
    job = await ended(feed, job_id)
    await queue.enqueue(job_id)
    await eventually(lambda: settled(ledger))
    assert job.attempts == 1
    assert len(model.requests) == 2


async def test_the_same_photo_and_question_cost_no_second_call(
    ledger: Ledger, feed: Feed, queue: JobQueue, origin: ImageServer, model: ImageServer
) -> None:
    first = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
    again = await ended(feed, await submit(ledger, queue, origin.url(PHOTO) + "?another=link"))
    assert len(model.requests) == 2
    assert (first.cached, again.cached, again.usage.output_tokens) == (False, True, 0)
    assert (again.model, again.result) == (
        first.model,
        first.result and first.result.model_copy(update={"cached": True}),
    )
    events = [orjson.loads(event.data) for event in await ledger.submissions.events(again.job_id)]
    stages = {event["stage"] for event in events if event["status"] == "completed"}
    assert stages >= {"fetch", "vision", "rule", "answer", "done"}
    for other in ({"user_input": "뚜껑은요?"}, {"locale": "en"}, {"fresh": True}):
        assert not (await ended(feed, await submit(ledger, queue, origin.url(PHOTO), **other))).cached
    assert len(model.requests) == 8


async def test_identical_jobs_at_the_same_time_share_one_pair_of_calls(
    ledger: Ledger, feed: Feed, queue: JobQueue, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda request: late(well_behaved(request), 0.5)
    ids = [await submit(ledger, queue, origin.url(PHOTO)) for _ in range(5)]
    jobs = [await ended(feed, job_id) for job_id in ids]
    assert sorted(job.cached for job in jobs) == [False, True, True, True, True]
    assert len(model.requests) == 2


async def test_a_job_that_waits_for_another_goes_on_when_that_one_fails(
    ledger: Ledger, feed: Feed, queue: JobQueue, origin: ImageServer, model: ImageServer
) -> None:
    asked = Counter[str]()

    def refuse_the_first(request: Request) -> Answer:
        asked[purpose_of(request)] += 1
        return late(refusal(), 0.5) if asked["vision"] == 1 else well_behaved(request)

    model.fallback = refuse_the_first
    ids = [await submit(ledger, queue, origin.url(PHOTO)) for _ in range(3)]
    jobs = [await ended(feed, job_id) for job_id in ids]
    assert sorted(job.status for job in jobs) == ["completed", "completed", "failed"]


async def test_a_retry_resumes_after_the_last_stage_that_was_paid_for(
    ledger: Ledger, feed: Feed, queue: JobQueue, origin: ImageServer, model: ImageServer
) -> None:
    seen = Counter[str]()

    def answer_fails_once(request: Request) -> Answer:
        seen[purpose_of(request)] += 1
        return problem(503) if seen["answer"] == 1 else well_behaved(request)

    model.fallback = answer_fails_once
    job = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
    assert (job.status, job.attempts) == ("completed", 2)
    assert seen == {"vision": 1, "answer": 2}
    assert len(origin.requests) == 1


async def test_many_jobs_that_fail_at_once_are_all_tried_as_often_as_they_should(
    ledger: Ledger, feed: Feed, queue: JobQueue
) -> None:
    """Their retries are planned while their first messages are still being sent."""
    refusing = f"http://127.0.0.1:{closed_port()}/a.jpg"
    ids = await asyncio.gather(*(submit(ledger, queue, refusing) for _ in range(100)))
    jobs = await asyncio.gather(*(ended(feed, job_id) for job_id in ids))
    assert Counter((job.error and job.error.code, job.attempts) for job in jobs) == {("source.unreachable", 3): 100}


async def test_a_cancelled_job_is_stopped_and_its_worker_goes_on(
    ledger: Ledger, feed: Feed, queue: JobQueue, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda _request: origin_answers.silence()
    job_id = await submit(ledger, queue, origin.url(PHOTO))
    await eventually(lambda: _has_asked(model, "vision"))
    await ledger.submissions.cancel(job_id)
    model.fallback = well_behaved
    assert (await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))).status == "completed"
    assert (await ended(feed, job_id)).status == "cancelled"
