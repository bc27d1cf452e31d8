"""The retry decision: pure, so each rule is one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.circuit import MAX_RETRY_AFTER
from pipeline.errors import (
    CATALOGUE,
    ModelBadOutput,
    ModelRateLimited,
    PipelineError,
    SourceForbidden,
    SourceTimeout,
    SourceUnreachable,
)
from pipeline.models import ModelPaused
from workers.execute.retry import MAX_DELAY_SECONDS, MIN_RUN_SECONDS, GiveUp, RetryIn, decide, wait_out

FOREVER = 1e9


def test_an_error_that_is_not_retryable_is_given_up_at_once() -> None:
    assert isinstance(decide(SourceForbidden(), retries=0, time_left=FOREVER, chance=0.5), GiveUp)


def test_retries_end_when_the_errors_attempts_are_used_up() -> None:
    assert isinstance(decide(ModelBadOutput(), retries=0, time_left=FOREVER, chance=0), RetryIn)
    assert isinstance(decide(ModelBadOutput(), retries=1, time_left=FOREVER, chance=0), GiveUp)


def test_the_upstreams_own_wish_is_a_floor() -> None:
    decision = decide(ModelRateLimited(retry_after=7), retries=0, time_left=FOREVER, chance=0)
    assert decision == RetryIn(7)


def test_the_upstreams_own_wish_is_bounded() -> None:
    decision = decide(SourceUnreachable(retry_after=86_400), retries=0, time_left=FOREVER, chance=0)
    assert decision == RetryIn(MAX_RETRY_AFTER)


def test_a_wish_past_the_deadline_is_given_up_at_once() -> None:
    assert isinstance(decide(ModelRateLimited(retry_after=300), retries=0, time_left=60, chance=0), GiveUp)


def test_the_ceiling_doubles_with_each_retry() -> None:
    delays = [decide(ModelRateLimited(), retries=n, time_left=FOREVER, chance=0.99) for n in range(3)]
    assert delays == [RetryIn(0.99), RetryIn(1.98), RetryIn(3.96)]


@pytest.mark.parametrize("code", CATALOGUE)
def test_only_retryable_codes_are_retried(code: str) -> None:
    error = next(kind for kind in PipelineError.__subclasses__() if kind.spec.code == code)()
    is_retried = isinstance(decide(error, retries=0, time_left=FOREVER, chance=0), RetryIn)
    assert is_retried is CATALOGUE[code].retryable


@given(
    retries=st.integers(0, 50),
    time_left=st.floats(-10, 600),
    chance=st.floats(0, 1, exclude_max=True),
    wish=st.none() | st.floats(0, 1000),
)
def test_a_retry_always_fits_before_the_deadline(
    retries: int, time_left: float, chance: float, wish: float | None
) -> None:
    decision = decide(SourceTimeout(retry_after=wish), retries=retries, time_left=time_left, chance=chance)
    if isinstance(decision, RetryIn):
        honoured = min(wish or 0, MAX_RETRY_AFTER)
        assert honoured <= decision.seconds <= min(time_left - MIN_RUN_SECONDS, honoured + MAX_DELAY_SECONDS)


def pause(seconds: float, spread: float = 0.0) -> ModelPaused:
    return ModelPaused("gpt-test", ModelRateLimited, seconds=seconds, spread=spread)


def test_a_job_comes_back_when_the_pause_is_over() -> None:
    assert wait_out(pause(7), time_left=FOREVER, chance=0.5) == RetryIn(7)


def test_many_jobs_come_back_one_after_the_other() -> None:
    delays = [wait_out(pause(7, spread=10), time_left=FOREVER, chance=n / 10) for n in range(10)]
    assert delays == [RetryIn(7.0 + n) for n in range(10)]


def test_a_job_that_could_not_wait_is_given_up_at_once() -> None:
    assert isinstance(wait_out(pause(300), time_left=60, chance=0), GiveUp)


@given(seconds=st.floats(0, 300), spread=st.floats(0, 30), time_left=st.floats(-10, 600), chance=st.floats(0, 1))
def test_whoever_waits_comes_back_after_the_pause_and_before_the_deadline(
    seconds: float, spread: float, time_left: float, chance: float
) -> None:
    decision = wait_out(pause(seconds, spread), time_left=time_left, chance=chance)
    if isinstance(decision, RetryIn):
        assert seconds <= decision.seconds <= min(seconds + spread, max(time_left - MIN_RUN_SECONDS, seconds))
    else:
        assert time_left - MIN_RUN_SECONDS < seconds
