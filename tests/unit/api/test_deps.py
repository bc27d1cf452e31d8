"""Reading the headers of a submit."""

import pytest

from api.deps import deadline_seconds, preferred_wait_seconds
from api.http.problems import Problem
from jobs.settings import JobsSettings


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=5", 5),
        ("wait = 5", 5),
        ("WAIT=5", 5),
        ("respond-async, wait=10", 10),
        ("wait=10;x=1, respond-async", 10),
        ("wait", 0),
        ("wait=", 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("wait=abc", 0),
        ("waiting=5", 0),
        ("wait=" + "9" * 5000, 0),
    ],
)
def test_a_preferred_wait_is_read_and_anything_else_ignored(prefer: str | None, seconds: int) -> None:
    assert preferred_wait_seconds(prefer) == seconds


def test_a_job_without_cancel_after_has_the_default_deadline_seconds() -> None:
    jobs = JobsSettings.model_validate({"job_deadline": 77})
    assert deadline_seconds(None, jobs) == 77


def test_cancel_after_may_reach_the_longest_deadline_and_not_pass_it() -> None:
    jobs = JobsSettings.model_validate({"max_deadline": 120})
    assert deadline_seconds("2m", jobs) == 120
    with pytest.raises(Problem):
        deadline_seconds("121s", jobs)
