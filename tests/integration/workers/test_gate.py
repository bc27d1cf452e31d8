"""The gate and its state in a real Redis. Two gates stand for two worker processes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from jobs.circuit import MAX_RETRY_AFTER, PAUSES, CallCounts, CircuitState, CircuitStore
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from pipeline.errors import (
    ModelAccount,
    ModelBadOutput,
    ModelRateLimited,
    ModelTimeout,
    ModelUnavailable,
    PipelineError,
)
from pipeline.models import ModelPaused
from tests.support.redis_server import closed_port
from tests.support.wait import eventually
from workers.execute.gate import MAX_SPREAD_SECONDS, CircuitBreaker

MODEL = "gpt-test"
STATE = f"bunri:model:{MODEL}"
WHOLE = (2, 4, 8, 15, 20, 30, 40, 60, 120, 300)
LONG = 60.0
"""A Retry-After that no test outlasts."""


@pytest.fixture
def gate(ledger: Ledger) -> CircuitBreaker:
    return gate_of(ledger)


@pytest.fixture
def other(ledger: Ledger) -> CircuitBreaker:
    return gate_of(ledger)


def gate_of(ledger: Ledger, per_minute: int = 0) -> CircuitBreaker:
    return CircuitBreaker(CircuitStore(ledger), probe_seconds=30, per_minute=per_minute)


async def call(gate: CircuitBreaker, error: PipelineError | None = None) -> None:
    async with gate.call(MODEL):
        if error is not None:
            raise error


def whole(seconds: float) -> int:
    """A pause as it was before the moments in which it was read."""
    return min((pause for pause in WHOLE if pause >= seconds), default=0)


async def rejected(gate: CircuitBreaker, retry_after: float | None = None) -> ModelPaused:
    """A call that the model answers with 429."""
    with pytest.raises(ModelPaused) as paused:
        await call(gate, ModelRateLimited(retry_after=retry_after))
    return paused.value


async def failing(gate: CircuitBreaker, error: PipelineError) -> None:
    with pytest.raises(type(error)):
        await call(gate, error)


async def is_let_through(gate: CircuitBreaker) -> bool:
    await gate.refresh()
    with suppress(ModelPaused):
        await call(gate)
        return True
    return False


async def state(ledger: Ledger) -> CircuitState:
    return await CircuitStore(ledger).report(MODEL, CallCounts())


async def end_pause(ledger: Ledger, *gates: CircuitBreaker) -> None:
    """As if its time had passed."""
    await ledger.client.hset(STATE, "until", 1)
    for gate in gates:
        await gate.refresh()


async def test_a_429_of_one_worker_pauses_all(gate: CircuitBreaker, other: CircuitBreaker) -> None:
    await call(gate)
    await call(other)
    assert (await rejected(gate, LONG)).cause is ModelRateLimited
    await other.refresh()
    for each in (gate, other):
        with pytest.raises(ModelPaused):
            each.check(MODEL)
        with pytest.raises(ModelPaused) as refused:
            await call(each)
        assert refused.value.cause is ModelRateLimited


async def test_a_process_that_starts_during_a_pause_makes_no_call(gate: CircuitBreaker, other: CircuitBreaker) -> None:
    await rejected(gate, LONG)
    with pytest.raises(ModelPaused):
        await call(other)


async def test_a_pause_of_one_model_leaves_the_others_alone(gate: CircuitBreaker) -> None:
    await rejected(gate, LONG)
    async with gate.call("another"):
        gate.check("another")


async def test_while_all_is_well_no_call_asks_redis(gate: CircuitBreaker, ledger: Ledger) -> None:
    await call(gate)
    before = (await ledger.client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    for _ in range(10):
        await call(gate)
    with pytest.raises(ModelBadOutput):
        await call(gate, ModelBadOutput())
    assert (await ledger.client.info("commandstats"))["cmdstat_evalsha"]["calls"] == before
    await gate.refresh()
    assert await cast("Any", ledger.client.hget(STATE, "calls")) == b"12"


async def test_pauses_grow_to_a_bound_and_start_anew_after_calm(gate: CircuitBreaker, ledger: Ledger) -> None:
    seconds = [(await rejected(gate)).seconds]
    for _ in range(5):
        await end_pause(ledger, gate)
        seconds.append((await rejected(gate)).seconds)
    assert [whole(each) for each in seconds] == [2, 4, 8, 15, 15, 15]
    await end_pause(ledger, gate)
    assert await is_let_through(gate)
    assert whole((await rejected(gate)).seconds) == 15  # Hardly over, and it begins again.
    await end_pause(ledger, gate)
    assert await is_let_through(gate)
    await ledger.client.hset(STATE, "calm_since", 1)
    assert whole((await rejected(gate)).seconds) == 2


@pytest.mark.parametrize(("wish", "seconds"), [(None, 2), (0.5, 2), (40, 40), (86_400, MAX_RETRY_AFTER)])
async def test_a_retry_after_is_honoured_up_to_a_bound(
    gate: CircuitBreaker, wish: float | None, seconds: float
) -> None:
    assert whole((await rejected(gate, wish)).seconds) == seconds


async def test_a_call_rejected_on_its_way_lengthens_the_pause_and_no_more(gate: CircuitBreaker, ledger: Ledger) -> None:
    async def overtaken() -> None:
        async with gate.call(MODEL):
            await rejected(gate)
            raise ModelRateLimited(retry_after=20)

    with pytest.raises(ModelPaused):
        await overtaken()
    assert whole((await state(ledger)).seconds) == 20
    await end_pause(ledger, gate)
    assert whole((await rejected(gate)).seconds) == 4  # It was the second pause, not the third.


async def test_exactly_one_of_many_callers_probes(gate: CircuitBreaker, other: CircuitBreaker, ledger: Ledger) -> None:
    await call(other)
    await rejected(gate)
    await end_pause(ledger, gate, other)
    inside, leave = asyncio.Event(), asyncio.Event()
    passed = []

    async def caller(gate: CircuitBreaker) -> None:
        async with gate.call(MODEL):
            passed.append(gate)
            inside.set()
            await leave.wait()

    callers = [asyncio.create_task(caller(each)) for each in (gate, other) for _ in range(25)]
    await inside.wait()
    await eventually(lambda: _are_done(callers, 49))
    assert len(passed) == 1
    assert all(isinstance(each.exception(), ModelPaused) for each in callers if each.done())
    with pytest.raises(ModelPaused):
        other.check(MODEL)
    leave.set()
    await asyncio.gather(*callers, return_exceptions=True)
    assert await is_let_through(gate)
    assert await is_let_through(other)


async def _are_done(tasks: list[asyncio.Task[None]], count: int) -> bool:
    return sum(task.done() for task in tasks) == count


async def test_a_probe_that_fails_pauses_for_longer_whatever_its_error(gate: CircuitBreaker, ledger: Ledger) -> None:
    await rejected(gate)
    await end_pause(ledger, gate)
    await failing(gate, ModelUnavailable())
    pause = await state(ledger)
    assert (pause.cause, whole(pause.seconds)) == (ModelUnavailable, 4)


async def test_a_probe_whose_answer_is_of_no_use_was_answered_all_the_same(
    gate: CircuitBreaker, ledger: Ledger
) -> None:
    await rejected(gate)
    await end_pause(ledger, gate)
    await failing(gate, ModelBadOutput())
    assert await state(ledger) == CircuitState()


async def test_a_probe_that_its_job_drops_is_another_callers(
    gate: CircuitBreaker, other: CircuitBreaker, ledger: Ledger
) -> None:
    await rejected(gate)
    await end_pause(ledger, gate, other)
    with pytest.raises(asyncio.CancelledError):
        async with gate.call(MODEL):
            raise asyncio.CancelledError
    assert await is_let_through(other)


async def test_the_probe_of_a_dead_worker_expires_and_its_late_word_does_not_count(
    gate: CircuitBreaker, other: CircuitBreaker, ledger: Ledger
) -> None:
    await rejected(gate)
    await end_pause(ledger, gate)
    async with gate.call(MODEL):
        assert not await is_let_through(other)
        await ledger.client.hset(STATE, "probe_until", 1)
        await other.refresh()
        await failing(other, ModelUnavailable())
    assert (await state(ledger)).cause is ModelUnavailable


@pytest.mark.parametrize("error", [ModelUnavailable, ModelTimeout])
async def test_an_outage_is_many_failures_and_half_of_the_calls(
    gate: CircuitBreaker, other: CircuitBreaker, ledger: Ledger, error: Callable[[], PipelineError]
) -> None:
    for _ in range(4):
        await failing(gate, error())
    assert await state(ledger) == CircuitState()
    for _ in range(6):
        await call(other)
    await other.refresh()
    await failing(gate, error())
    assert await state(ledger) == CircuitState()  # Five of eleven.
    await failing(other, error())
    assert (await state(ledger)).cause is type(error())


async def test_failures_of_another_time_are_forgotten(gate: CircuitBreaker, ledger: Ledger) -> None:
    for _ in range(4):
        await failing(gate, ModelUnavailable())
    await ledger.client.hincrby(STATE, "half", -2)
    await failing(gate, ModelUnavailable())
    assert await state(ledger) == CircuitState()


async def test_a_refused_account_pauses_for_long_and_is_an_error_in_the_log_once(
    gate: CircuitBreaker, ledger: Ledger
) -> None:
    with capture_logs() as logs:
        for _ in range(5):
            await failing(gate, ModelAccount("no quota"))
            await end_pause(ledger, gate)
    paused = [entry for entry in logs if entry["event"] == "model.paused"]
    assert [whole(entry["seconds"]) for entry in paused] == [30, 60, 120, 300, 300]
    assert [entry["log_level"] for entry in paused] == ["error", *["warning"] * 4]


async def test_the_more_are_sent_away_the_wider_they_come_back(gate: CircuitBreaker, ledger: Ledger) -> None:
    await rejected(gate, LONG)
    assert (await _refusal(gate)).spread == 0
    for jobs, spread in ((100, 5.0), (9900, MAX_SPREAD_SECONDS)):
        await CircuitStore(ledger).report(MODEL, CallCounts(rejected=jobs))
        await gate.refresh()
        assert (await _refusal(gate)).spread == pytest.approx(spread, abs=0.2)
    await end_pause(ledger, gate)
    assert (await rejected(gate)).spread == MAX_SPREAD_SECONDS  # Those of the last pause are still to come.


async def _refusal(gate: CircuitBreaker) -> ModelPaused:
    with pytest.raises(ModelPaused) as refused:
        await call(gate)
    return refused.value


async def test_trouble_with_redis_stops_no_call() -> None:
    settings = JobsSettings.model_validate({"redis_url": f"redis://127.0.0.1:{closed_port()}/0"})
    ledger = Ledger.connect(settings)
    gate = gate_of(ledger, per_minute=1)
    for _ in range(3):
        await call(gate)
    await failing(gate, ModelRateLimited())
    await call(gate)
    await gate.refresh()
    await ledger.close()


async def test_a_limit_holds_for_the_whole_fleet(ledger: Ledger) -> None:
    gates = [gate_of(ledger, per_minute=1) for _ in range(2)]
    ended = await asyncio.gather(*(call(gate) for gate in gates for _ in range(10)), return_exceptions=True)
    sent_away = [each for each in ended if isinstance(each, ModelPaused)]
    assert len(sent_away) == 19
    assert {each.cause for each in sent_away} == {ModelRateLimited}


async def test_a_call_whose_turn_is_near_waits_for_it_where_it_is(ledger: Ledger) -> None:
    gate = gate_of(ledger, per_minute=120)
    await call(gate)
    await call(gate)


async def test_turns_are_given_for_so_long_and_beyond_that_jobs_come_back_spread(ledger: Ledger) -> None:
    gate = gate_of(ledger, per_minute=6)
    await call(gate)
    refusals = [await _refusal(gate) for _ in range(5)]
    assert [each.spread for each in refusals[:2] + refusals[-2:]] == [0, 0, 30, 30]
    assert [each.seconds for each in refusals] == sorted(each.seconds for each in refusals)


async def test_figures_tell_of_each_model(gate: CircuitBreaker, ledger: Ledger) -> None:
    await rejected(gate)
    await _refusal(gate)
    async with gate.call("another"):
        pass
    await end_pause(ledger, gate)
    assert await is_let_through(gate)
    await rejected(gate)
    await gate.refresh()
    figures = {each.model: each for each in await CircuitStore(ledger).figures()}
    assert figures["another"].cause == ""
    paused: Any = figures[MODEL]
    assert (paused.cause, paused.pauses, paused.probes) == ("model.rate_limited", 2, 1)
    assert paused.rejected == 3  # The two rejected ones, whose jobs wait as well, and the one that was not made.
    assert paused.seconds > 0


def test_pauses_are_positive_and_grow() -> None:
    for pauses in PAUSES.values():
        assert list(pauses) == sorted(pauses)
        assert pauses[0] > 0
