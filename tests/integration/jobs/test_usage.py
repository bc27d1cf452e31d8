"""What model calls have cost: counted once for each that was paid for, whatever became of its job."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobs.broker.queue import JobQueue
from jobs.errors import StaleClaim
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.model import Claim, Job, JobError
from jobs.redis import keys
from jobs.settings import JobsSettings
from jobs.usage import DAY, DAYS_KEPT, UsageReader
from pipeline.types import Stage
from tests.support.api_server import ApiServer, running_api
from tests.support.image_server import Answer, ImageServer, Request
from tests.support.jobs import answer, completed, new_job, observation, paid, result
from tests.support.openai_server import completed as responds
from tests.support.openai_server import problem, purpose_of, well_behaved
from tests.support.redis_server import closed_port
from tests.support.usage import pass_a_day, spend, spent
from tests.support.wait import eventually
from tests.support.worker import PHOTO, Gate, ended, start_worker, submit, working

CALL_USD = (500 * 2 + 2000 * 0.2 + 500 * 2.5 + 100 * 12) / 1e6
"""The stand-in's reply at the price of gpt-5.6-terra."""

MODEL = "gpt-5.6-terra"
FAILURE = JobError(code="model.bad_output", retryable=True, trace_id="t")


async def claimed(ledger: Ledger) -> Claim:
    created = await ledger.submissions.create(new_job())
    claim = await ledger.claims.claim(created.job_id)
    assert claim is not None
    return claim


async def calls(ledger: Ledger) -> int:
    return (await spent(ledger)).calls


async def job_of(ledger: Ledger, job_id: str) -> Job:
    job = await ledger.submissions.get(job_id)
    assert job is not None
    return job


# --- the ledger's writes ---


async def test_a_write_that_is_repeated_is_charged_once(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    for _ in range(2):
        await ledger.claims.record(claim, completed(Stage.VISION, observation()), write=1)
    assert await calls(ledger) == 1
    written = answer().model_copy(update={"usage": observation().usage})
    for _ in range(2):
        await ledger.claims.complete(claim, result(), completed(Stage.ANSWER, written))
    assert await calls(ledger) == 2
    job = await job_of(ledger, claim.job_id)
    assert (job.usage.input_tokens, round(job.usage.cost_usd, 9)) == (20, 0.002)


async def test_a_retry_and_a_failure_are_charged_once_though_their_answers_are_lost(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.claims.retry(claim, "model.bad_output", delay=0, spent=paid())
    with pytest.raises(StaleClaim):
        await ledger.claims.retry(claim, "model.bad_output", delay=0, spent=paid())
    assert await calls(ledger) == 1
    again = await ledger.claims.claim(claim.job_id)
    assert again is not None
    for _ in range(2):
        await ledger.claims.fail(again, FAILURE, Stage.VISION, spent=paid())
    assert await calls(ledger) == 2
    assert (await job_of(ledger, claim.job_id)).usage.output_tokens == 4


async def test_money_is_spent_even_if_the_job_was_cancelled_meanwhile(ledger: Ledger) -> None:
    claims = [await claimed(ledger) for _ in range(4)]
    for claim in claims:
        await ledger.submissions.cancel(claim.job_id)
    one, two, three, four = claims
    priced = answer().model_copy(update={"usage": observation().usage})
    writes: tuple[Callable[[], Awaitable[None]], ...] = (
        lambda: ledger.claims.record(one, completed(Stage.VISION, observation()), write=1),
        lambda: ledger.claims.complete(two, result(), completed(Stage.ANSWER, priced)),
        lambda: ledger.claims.fail(three, FAILURE, spent=paid()),
        lambda: ledger.claims.retry(four, "model.bad_output", delay=0, spent=paid()),
    )
    for write in writes:
        for _ in range(2):
            with pytest.raises(StaleClaim):
                await write()
    assert await calls(ledger) == 4
    assert [(await job_of(ledger, claim.job_id)).usage.input_tokens for claim in claims] == [10] * 4


async def test_two_workers_that_made_the_same_call_are_both_charged(ledger: Ledger) -> None:
    late = await claimed(ledger)
    await eventually(lambda: _is_reclaimed(ledger, late.job_id))
    other = await ledger.claims.claim(late.job_id)
    assert other is not None
    await ledger.claims.record(other, completed(Stage.VISION, observation()), write=1)
    with pytest.raises(StaleClaim):
        await ledger.claims.record(late, completed(Stage.VISION, observation()), write=1)
    assert await calls(ledger) == 2


async def _is_reclaimed(ledger: Ledger, job_id: str) -> bool:
    return job_id in await ledger.upkeep.rescue_stalled()


async def test_a_late_call_brings_no_expired_job_back(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.submissions.cancel(claim.job_id)
    await ledger.client.delete(f"bunri:job:{claim.job_id}")
    with pytest.raises(StaleClaim):
        await ledger.claims.record(claim, completed(Stage.VISION, observation()), write=1)
    assert await ledger.submissions.get(claim.job_id) is None


async def test_a_call_without_a_price_counts_its_tokens(ledger: Ledger) -> None:
    await spend(ledger, 0.0)
    bill = await spent(ledger)
    assert (bill.calls, bill.usage.output_tokens, bill.usage.cost_usd) == (1, 2, 0)


async def test_a_day_is_kept_as_long_as_it_can_be_asked_for(ledger: Ledger) -> None:
    await spend(ledger, 0.5)
    ttl = await ledger.client.ttl(keys.usage_of_day(int(await ledger.now()) // DAY))
    assert DAYS_KEPT * DAY <= ttl <= 2 * DAYS_KEPT * DAY


# --- a real worker ---


async def test_a_job_that_goes_well_costs_two_calls_and_its_repeat_none(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    async with working(ledger, redis_url, model):
        first = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        again = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        local = await ended(feed, await submit(ledger, queue, origin.url(PHOTO), model="local"))
    assert (first.cached, again.cached, local.status) == (False, True, "completed")
    bills = await UsageReader(ledger).ever()
    assert set(bills) == {MODEL}
    assert bills[MODEL].calls == len(model.requests) == 2
    usage = bills[MODEL].usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (6000, 4000, 200)
    assert usage.cost_usd == first.usage.cost_usd == pytest.approx(2 * CALL_USD)
    assert (again.usage.cost_usd, local.usage.cost_usd) == (0, 0)


async def test_calls_that_came_to_nothing_are_counted_whether_the_job_is_tried_again_falls_back_or_fails(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    seen = Counter[str]()

    def bad_once(request: Request) -> Answer:
        seen[purpose_of(request)] += 1
        return responds("no JSON") if seen["vision"] == 1 else well_behaved(request)

    async with working(ledger, redis_url, model, RESULT_CACHE_TTL="0"):
        model.fallback = bad_once
        retried = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        assert (retried.status, await calls(ledger)) == ("completed", 3)
        model.fallback = lambda _request: responds("no JSON")
        failed = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
        assert (failed.status, await calls(ledger)) == ("failed", 5)
    async with working(ledger, redis_url, model, RESULT_CACHE_TTL="0", FALLBACK_MODEL="local"):
        degraded = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
    assert (degraded.status, degraded.degraded) == ("completed", True)
    bill = await spent(ledger)
    assert bill.calls == len(model.requests) == 7
    assert [job.usage.output_tokens for job in (retried, failed, degraded)] == [300, 200, 200]
    assert bill.usage.cost_usd == pytest.approx(7 * CALL_USD)


async def test_calls_without_an_answer_cost_nothing(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda _request: problem(400, "unknown_parameter")
    async with working(ledger, redis_url, model):
        await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
    assert await calls(ledger) == 0


async def test_a_cancel_after_vision_keeps_what_vision_cost(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    answers = Gate()
    model.fallback = lambda request: well_behaved(request) if purpose_of(request) == "vision" else answers(request)
    async with working(ledger, redis_url, model):
        job_id = await submit(ledger, queue, origin.url(PHOTO))
        await eventually(lambda: _has_requests(model, 2))
        await ledger.submissions.cancel(job_id)
        job = await ended(feed, job_id)
        assert await calls(ledger) == 1
        answers.open()
    assert (job.status, job.usage.output_tokens) == ("cancelled", 100)


async def test_a_job_that_another_worker_takes_over_pays_for_vision_once(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    answers = Gate()
    model.fallback = lambda request: well_behaved(request) if purpose_of(request) == "vision" else answers(request)
    async with working(ledger, redis_url, model) as doomed:
        job_id = await submit(ledger, queue, origin.url(PHOTO))
        await eventually(lambda: _has_requests(model, 2))
        doomed.kill()
        answers.open()
        heir = start_worker(redis_url, model, index=2)
        try:
            job = await ended(feed, job_id, within=60)
        finally:
            heir.kill()
            heir.wait()
    assert (job.status, job.attempts, job.usage.output_tokens) == ("completed", 2, 200)
    # Its first call for the answer was cut: nobody can say what that cost.
    assert (await calls(ledger), len(model.requests)) == (2, 3)


async def _has_requests(server: ImageServer, count: int) -> bool:
    return len(server.requests) >= count


# --- who may ask ---


async def test_usage_is_told_by_day_and_by_model(api: ApiServer, ledger: Ledger) -> None:
    await spend(ledger, 0.25, "gpt-a")
    await pass_a_day(ledger)
    for model in ("gpt-a", "gpt-a", "ft:gpt-b:ours"):
        await spend(ledger, 0.1, model)
    shown = (await api.client.get("/api/v1/usage", params={"days": 3})).json()
    today, yesterday, before = shown["days"]
    assert [today["day"], yesterday["day"], before["day"]] == sorted(
        (day["day"] for day in shown["days"]), reverse=True
    )
    assert today["models"] == {"gpt-a": bill(2, 0.2), "ft:gpt-b:ours": bill(1, 0.1)}
    assert (today["total"], yesterday["total"], before["models"]) == (bill(3, 0.3), bill(1, 0.25), {})
    assert shown["models"] == {"gpt-a": bill(3, 0.45), "ft:gpt-b:ours": bill(1, 0.1)}
    assert shown["total"] == bill(4, 0.55)
    assert shown["budget"] == {
        "limit_usd": None,
        "spent_usd": 0.3,
        "left_usd": None,
        "is_used_up": False,
        "exceeded": "local",
    }


def bill(count: int, usd: float) -> dict[str, Any]:
    return {
        "calls": count,
        "input_tokens": 10 * count,
        "cached_tokens": 4 * count,
        "output_tokens": 2 * count,
        "cost_usd": usd,
    }


async def test_what_is_left_of_the_budget_is_that_of_today(jobs_settings: JobsSettings, ledger: Ledger) -> None:
    jobs = jobs_settings.model_copy(update={"model_budget_usd": 1.0})
    async with running_api(jobs) as api:
        await spend(ledger, 5.0)
        assert await _budget(api) == (5.0, 0.0, True)
        await pass_a_day(ledger)
        assert await _budget(api) == (0.0, 1.0, False)
        await spend(ledger, 0.25)
        assert await _budget(api) == (0.25, 0.75, False)
        assert await _metric(api, "bunri_budget_left_dollars ") == 0.75


async def _budget(api: ApiServer) -> tuple[float, float, bool]:
    shown = (await api.client.get("/api/v1/usage")).json()["budget"]
    return shown["spent_usd"], shown["left_usd"], shown["is_used_up"]


async def _metric(api: ApiServer, name: str) -> float | None:
    lines = (await api.client.get("/metrics")).text.splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), None)


@pytest.mark.parametrize("days", ["0", str(DAYS_KEPT + 1), "many"])
async def test_days_that_are_not_kept_cannot_be_asked_for(api: ApiServer, days: str) -> None:
    reply = await api.client.get("/api/v1/usage", params={"days": days})
    assert (reply.status_code, reply.json()["code"]) == (422, "request.invalid")


async def test_nobody_can_say_while_redis_is_away() -> None:
    jobs = JobsSettings.model_validate({"redis_url": f"redis://127.0.0.1:{closed_port()}/0", "redis_timeout": 0.3})
    async with running_api(jobs) as api:
        reply = await api.client.get("/api/v1/usage")
    assert (reply.status_code, reply.json()["code"]) == (503, "queue.unavailable")


async def test_metrics_count_tokens_and_dollars_and_never_go_back(api: ApiServer, ledger: Ledger) -> None:
    await spend(ledger, 0.25)
    await pass_a_day(ledger)
    await asyncio.gather(*(spend(ledger, 0.25) for _ in range(3)))
    figures = {
        name: await _metric(api, name)
        for name in (
            'bunri_model_calls_total{model="gpt-test"} ',
            'bunri_model_tokens_total{kind="input",model="gpt-test"} ',
            'bunri_model_tokens_total{kind="cached",model="gpt-test"} ',
            'bunri_model_tokens_total{kind="output",model="gpt-test"} ',
            'bunri_model_cost_dollars_total{model="gpt-test"} ',
        )
    }
    assert list(figures.values()) == [4, 40, 16, 8, 1.0]
    assert await _metric(api, "bunri_budget_left_dollars ") is None
