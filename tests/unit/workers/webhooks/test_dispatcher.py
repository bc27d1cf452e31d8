"""`plan`: from an attempt's reply to the next step of its delivery. Pure."""

import pytest

from jobs.deliveries import AttemptError, Outcome
from jobs.settings import JobsSettings
from workers.webhooks.dispatcher import plan
from workers.webhooks.sender import ReceiverReply

SCHEDULE = (5.0, 60.0, 300.0)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_success_ends_the_delivery(status: int) -> None:
    report = plan(ReceiverReply(status), 0, SCHEDULE)
    assert (report.outcome, report.retry_in) == (Outcome.DELIVERED, None)


def test_gone_ends_the_delivery() -> None:
    report = plan(ReceiverReply(410), 0, SCHEDULE)
    assert (report.outcome, report.retry_in) == (Outcome.STOPPED, None)


FAILURES = (
    *(ReceiverReply(status) for status in (100, 301, 302, 307, 400, 401, 404, 429, 500, 503)),
    *(ReceiverReply(error=error) for error in AttemptError),
)


@pytest.mark.parametrize("reply", FAILURES)
def test_anything_else_is_tried_again(reply: ReceiverReply) -> None:
    report = plan(reply, 0, SCHEDULE)
    assert (report.outcome, report.retry_in, report.next_step) == (Outcome.RETRY, 5.0, 1)


def test_the_schedule_is_gone_through_step_by_step_and_then_it_is_given_up() -> None:
    reports = [plan(ReceiverReply(500), step, SCHEDULE) for step in range(4)]
    assert [report.retry_in for report in reports] == [5.0, 60.0, 300.0, None]
    assert reports[-1].outcome is Outcome.GAVE_UP


@pytest.mark.parametrize(
    ("wish", "wait"), [(None, 60), (0, 60), (59, 60), (61, 61), (299, 299), (300, 300), (1e11, 300)]
)
def test_retry_after_is_heeded_up_to_the_longest_step_and_brings_nothing_forward(
    wish: float | None, wait: float
) -> None:
    assert plan(ReceiverReply(429, retry_after=wish), 1, SCHEDULE).retry_in == wait


def test_retry_after_adds_no_attempt() -> None:
    assert plan(ReceiverReply(503, retry_after=10), 3, SCHEDULE).outcome is Outcome.GAVE_UP


def test_the_default_schedule_goes_from_seconds_to_a_day() -> None:
    schedule = JobsSettings.model_validate({}).webhook_schedule
    assert list(schedule) == sorted(schedule)
    assert (schedule[0], 80_000 < sum(schedule) <= 86_400) == (5, True)
