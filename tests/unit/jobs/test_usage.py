from datetime import date

import pytest

from jobs.ledger.record import charges
from jobs.model import Claim
from jobs.usage import Day, ModelUsage, by_model, left_of
from pipeline.types import Checkpoints, JobInput, PaidCall, Stage, Usage
from tests.support.jobs import answer, completed, observation, paid, started


def claim_with(done: Checkpoints) -> Claim:
    return Claim(
        job_id="a",
        token=3,
        input=JobInput(),
        checkpoints=done,
        attempts=1,
        retries={},
        time_left=60,
        trace_id="",
    )


def test_a_checkpoint_and_a_call_that_came_to_nothing_are_charged_under_names_of_their_own() -> None:
    claim = claim_with(Checkpoints())
    arguments = charges(claim, [started(Stage.VISION), completed(Stage.VISION, observation())], paid(7, "gpt"))
    assert len(arguments) == 14
    assert arguments[0::7] == ["paid:3:vision", "paid:3:spent"]
    assert arguments[2::7] == ["local/test", "gpt"]
    assert arguments[3:7] == [10, 0, 2, 1_000_000]
    assert [PaidCall.model_validate_json(each).usage.output_tokens for each in arguments[1::7]] == [2, 7]


def test_what_an_earlier_attempt_made_is_not_charged_again() -> None:
    assert charges(claim_with(Checkpoints(observation=observation())), [completed(Stage.VISION, observation())]) == []


def test_what_cost_no_tokens_is_not_charged() -> None:
    nothing = PaidCall(model="gpt", usage=Usage())
    steps = [completed(Stage.ANSWER, answer())]
    assert charges(claim_with(Checkpoints()), steps, nothing) == []


def test_the_smallest_price_is_kept_exactly() -> None:
    one_cached_token = PaidCall(model="gpt", usage=Usage(input_tokens=1, cached_tokens=1, cost_usd=0.02e-6))
    assert charges(claim_with(Checkpoints()), spent=one_cached_token)[-1] == 20


def test_bills_of_a_model_add_up_over_days() -> None:
    days = [
        Day(
            day=date(2026, 11, 28),
            models={"a": ModelUsage(calls=1, usage=Usage(output_tokens=5)), "b": ModelUsage(calls=2)},
        ),
        Day(day=date(2026, 11, 27), models={"a": ModelUsage(calls=3, usage=Usage(output_tokens=7))}),
    ]
    assert by_model(days) == {"a": ModelUsage(calls=4, usage=Usage(output_tokens=12)), "b": ModelUsage(calls=2)}
    assert days[0].total.calls == 3


@pytest.mark.parametrize(
    ("budget", "spent", "left"), [(None, 5.0, None), (1.0, 0.25, 0.75), (1.0, 3.0, 0.0), (0.3, 0.1 + 0.2, 0.0)]
)
def test_what_is_left_is_never_negative(budget: float | None, spent: float, left: float | None) -> None:
    assert left_of(budget, spent) == left
