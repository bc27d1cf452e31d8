"""Real workers whose model turns calls away, fails, or has no money left: calls are counted, never timed."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import pytest

from jobs.broker.queue import JobQueue
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.model import Job
from pipeline.errors import CATALOGUE
from tests.support.image_server import Answer, ImageServer, Request
from tests.support.openai_server import problem, purpose_of, well_behaved
from tests.support.wait import eventually
from tests.support.worker import PHOTO, ended, submit, working

pytestmark = pytest.mark.timeout(300)  # Several workers and many jobs, perhaps on a busy machine.

LONGER_THAN_A_TEST = "300"
STORM = 5.0
PROBES_OF_STORM = 1
"""The pauses are 2 and 4 seconds: one probe within 5."""


def rejection(retry_after: str) -> Answer:
    return problem(429, "rate_limit_exceeded", Retry_After=retry_after)


def storm(seconds: float) -> Callable[[Request], Answer]:
    """Every call is rejected, from the first one on, for so long."""
    began: list[float] = []

    def answer(request: Request) -> Answer:
        began.append(time.monotonic())
        return rejection("1") if time.monotonic() < began[0] + seconds else well_behaved(request)

    return answer


async def test_a_storm_of_429_costs_a_handful_of_calls_and_no_job(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    jobs = 60
    model.fallback = storm(STORM)
    async with working(ledger, redis_url, model, workers=2, RESULT_CACHE_TTL="0"):
        ids = [await submit(ledger, queue, origin.url(PHOTO), deadline=300)]
        await eventually(lambda: _is_paused(ledger))
        ids += [await submit(ledger, queue, origin.url(PHOTO), deadline=300) for _ in range(jobs - 1)]
        done = [await ended(feed, job_id, within=120) for job_id in ids]
    assert Counter((job.status, job.attempts, job.degraded) for job in done) == {("completed", 1, False): jobs}
    rejected = len(model.requests) - 2 * jobs
    assert 1 <= rejected <= 1 + PROBES_OF_STORM
    # Parked jobs neither fetched their photo again each time nor said so in their events.
    assert len(origin.requests) <= 2 * jobs


async def test_a_long_retry_after_holds_no_slot_and_fails_at_once_whoever_cannot_wait(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda _request: rejection(LONGER_THAN_A_TEST)
    async with working(ledger, redis_url, model, concurrency=1):
        patient = await submit(ledger, queue, origin.url(PHOTO), deadline=600)
        await eventually(lambda: _is_paused(ledger))
        others = [await submit(ledger, queue, origin.url(PHOTO), deadline=60) for _ in range(3)]
        failed = [await ended(feed, job_id) for job_id in others]
        local = await ended(feed, await submit(ledger, queue, origin.url(PHOTO), model="local"))
    assert [_code(job) for job in failed] == ["model.rate_limited"] * 3
    assert all(job.error is not None and job.error.retryable for job in failed)
    assert (local.status, local.degraded) == ("completed", False)
    waiting = await ledger.submissions.get(patient)
    assert waiting is not None
    assert (waiting.status, waiting.attempts) == ("queued", 0)
    assert len(model.requests) == 1


async def test_an_account_without_money_is_asked_once_and_no_job_waits_in_vain(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda _request: problem(429, "insufficient_quota", Retry_After="1")
    async with working(ledger, redis_url, model):
        first = await ended(feed, await submit(ledger, queue, origin.url(PHOTO), deadline=20))
        others = [await submit(ledger, queue, origin.url(PHOTO), deadline=20) for _ in range(5)]
        done = [first, *(await asyncio.gather(*(ended(feed, job_id) for job_id in others)))]
    assert [_code(job) for job in done] == ["model.account"] * 6
    assert len(model.requests) == 1


async def test_a_call_that_fails_is_one_request_and_a_job_makes_as_many_as_its_error_allows(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    """Neither the SDK nor Celery adds tries of its own."""
    model.fallback = lambda _request: problem(500, None, Retry_After="1")
    async with working(ledger, redis_url, model):
        job = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
    assert _code(job) == "model.unavailable"
    assert len(model.requests) == job.attempts == CATALOGUE["model.unavailable"].max_attempts


async def test_the_local_model_answers_what_the_hosted_one_cannot_and_says_so(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    def cannot_write(request: Request) -> Answer:
        return well_behaved(request) if purpose_of(request) == "vision" else problem(503)

    async with working(ledger, redis_url, model, FALLBACK_MODEL="local"):
        model.fallback = cannot_write
        half = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        assert Counter(purpose_of(request) for request in model.requests) == {"vision": 1, "answer": 3}

        model.requests.clear()
        model.fallback = lambda _request: rejection(LONGER_THAN_A_TEST)
        first = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        again = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        asked = await ended(feed, await submit(ledger, queue, origin.url(PHOTO), model="local"))
        assert len(model.requests) == 1

    assert [_makers(job) for job in (half, first, again, asked)] == [("gpt", "local"), *[("local", "local")] * 3]
    assert [(job.status, job.degraded, job.cached) for job in (half, first, again)] == [("completed", True, False)] * 3
    assert (half.usage.output_tokens, first.usage.output_tokens) == (100, 0)
    assert (asked.degraded, asked.cached) == (False, False)


async def _is_paused(ledger: Ledger) -> bool:
    return bool(await ledger.client.keys("bunri:model:*")) and await ledger.fleet.running() == 0


def _code(job: Job) -> str | None:
    return job.error.code if job.error else None


def _makers(job: Job) -> tuple[str, str]:
    assert job.result is not None
    names = job.result.observation.model, job.result.answer.model
    seen, written = ("local" if name.startswith("local/") else name[:3] for name in names)
    return seen, written
