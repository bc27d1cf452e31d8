"""The day's budget: known to each worker within moments, and what becomes of jobs when it is used up."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobs.broker.queue import JobQueue
from jobs.circuit import CircuitStore
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.model import Job, OverBudget
from pipeline.errors import ModelBudgetExhausted
from tests.support.image_server import ImageServer
from tests.support.openai_server import well_behaved
from tests.support.usage import pass_a_day, spend, spent
from tests.support.wait import eventually
from tests.support.worker import PHOTO, Gate, ended, submit, working
from workers.execute.budget import Budget
from workers.execute.gate import CircuitBreaker

pytestmark = pytest.mark.timeout(300)

MODEL = "gpt-test"
FOR_ONE_JOB = "0.005"
"""Less than two calls cost, and more than one does."""


def gate_of(ledger: Ledger, limit: float | None, then: OverBudget = OverBudget.LOCAL) -> CircuitBreaker:
    return CircuitBreaker(CircuitStore(ledger), probe_seconds=30, budget=Budget(limit, then))


async def call(gate: CircuitBreaker) -> None:
    async with gate.call(MODEL):
        pass


async def test_a_gate_learns_at_each_refresh_what_all_have_spent(ledger: Ledger) -> None:
    gate = gate_of(ledger, 1.0)
    await call(gate)
    await spend(ledger, 0.6, "gpt-a")
    await gate.refresh()
    await call(gate)
    await spend(ledger, 0.6, "gpt-b")
    await call(gate)  # It has not heard of it: so far a budget can be overshot.
    await gate.refresh()
    for _ in range(2):
        with pytest.raises(ModelBudgetExhausted):
            await call(gate)
    with pytest.raises(ModelBudgetExhausted):
        gate.check(MODEL)
    gate.check("local/anything")


async def test_a_process_that_starts_when_it_is_used_up_makes_no_call(ledger: Ledger) -> None:
    await spend(ledger, 1.0)
    with pytest.raises(ModelBudgetExhausted):
        await call(gate_of(ledger, 1.0))


async def test_calls_go_on_when_the_day_is_over(ledger: Ledger) -> None:
    gate = gate_of(ledger, 1.0)
    await spend(ledger, 1.0)
    with pytest.raises(ModelBudgetExhausted):
        await call(gate)
    await pass_a_day(ledger)
    await gate.refresh()
    await call(gate)


async def test_without_a_budget_nothing_stops_a_call(ledger: Ledger) -> None:
    await spend(ledger, 1e6)
    await call(gate_of(ledger, None))


async def test_a_job_that_would_be_refused_may_first_look_for_an_earlier_result(ledger: Ledger) -> None:
    gate = gate_of(ledger, 0.0, OverBudget.REFUSE)
    with pytest.raises(ModelBudgetExhausted):
        await call(gate)
    gate.check(MODEL)


async def test_the_local_model_answers_for_the_rest_of_the_day_and_says_so(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    async def job(**asked: Any) -> Job:
        return await ended(feed, await submit(ledger, queue, origin.url(PHOTO), **asked))

    async def is_degraded() -> bool:
        return (await job(fresh=True)).degraded

    async with working(ledger, redis_url, model, MODEL_BUDGET_USD=FOR_ONE_JOB):
        first = await job()
        await eventually(is_degraded)
        made = len(model.requests)
        model_override, again, local = await job(fresh=True), await job(), await job(model="local")
        assert len(model.requests) == made
        assert (await spent(ledger)).calls == made

        await pass_a_day(ledger)
        await eventually(lambda: _is_not(is_degraded))
    assert [(each.status, each.degraded, each.cached) for each in (first, model_override, again, local)] == [
        ("completed", False, False),
        ("completed", True, False),
        ("completed", False, True),  # The answer of before costs nothing.
        ("completed", False, False),
    ]
    assert len(model.requests) > made


async def _is_not(predicate: Callable[[], Awaitable[bool]]) -> bool:
    return not await predicate()


async def test_a_job_in_the_middle_is_finished_by_the_local_model(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    async def is_degraded() -> bool:
        return (await ended(feed, await submit(ledger, queue, origin.url(PHOTO), fresh=True))).degraded

    look = Gate()
    model.fallback = look
    async with working(ledger, redis_url, model, MODEL_BUDGET_USD="1"):
        job_id = await submit(ledger, queue, origin.url(PHOTO))
        await eventually(lambda: _has_requests(model))
        await spend(ledger, 1.0)
        model.fallback = well_behaved
        await eventually(is_degraded)  # The worker knows.
        look.open()
        job = await ended(feed, job_id)
    assert job.result is not None
    assert (job.degraded, job.result.observation.model) == (True, "gpt-5.6-terra")
    assert job.result.answer.model.startswith("local/")
    assert job.usage.output_tokens == 100


async def _has_requests(server: ImageServer) -> bool:
    return bool(server.requests)


async def test_jobs_are_refused_if_the_setting_says_so_and_only_those_that_would_cost(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    async def job(**asked: Any) -> Job:
        return await ended(feed, await submit(ledger, queue, origin.url(PHOTO), **asked))

    async def is_refused() -> bool:
        return (await job(fresh=True)).status == "failed"

    async with working(
        ledger,
        redis_url,
        model,
        MODEL_BUDGET_USD=FOR_ONE_JOB,
        MODEL_BUDGET_EXCEEDED="refuse",
        FALLBACK_MODEL="local",  # Is for trouble with the model, which this is not.
    ):
        first = await job()
        await eventually(is_refused)
        made = len(model.requests)
        refused, again, local = await job(fresh=True), await job(), await job(model="local")
        assert len(model.requests) == made
        await pass_a_day(ledger)
        await eventually(lambda: _is_not(is_refused))
    assert refused.error is not None
    assert (refused.error.code, refused.attempts) == ("model.budget_exhausted", 1)
    assert [(each.status, each.cached) for each in (first, again, local)] == [
        ("completed", False),
        ("completed", True),
        ("completed", False),
    ]
