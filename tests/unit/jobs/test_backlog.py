"""How long a job waits, by who stands ahead of it and how fast the fleet works. Pure."""

from dataclasses import replace

import pytest

from jobs.backlog import Backlog
from jobs.model import Priority

BUSY = Backlog(interactive=0, bulk=0, slots=10, running=10, mean_service_time=2.0)
"""Ten slots that each serve a job in two seconds: five turns a second."""

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


@pytest.mark.parametrize("priority", Priority)
def test_a_job_that_finds_a_free_slot_waits_for_nothing(priority: Priority) -> None:
    line = replace(BUSY, running=7, mean_service_time=None)
    assert [line.wait(priority, ahead) for ahead in range(3)] == [0, 0, 0]
    assert line.wait(priority, 3) is None


@pytest.mark.parametrize(
    "line",
    [replace(BUSY, mean_service_time=None), replace(BUSY, slots=0), replace(BUSY, slots=0, mean_service_time=None)],
)
@pytest.mark.parametrize("priority", Priority)
def test_nobody_can_say_without_a_worker_or_before_the_first_turn(line: Backlog, priority: Priority) -> None:
    assert line.wait(priority, 0) is None


@pytest.mark.parametrize("priority", Priority)
def test_with_one_lane_alone_each_waits_for_as_many_turns_as_are_ahead_and_its_own(priority: Priority) -> None:
    assert [BUSY.wait(priority, ahead) for ahead in (0, 9, 99)] == [0.2, 2.0, 20.0]


def test_free_slots_serve_the_first_of_those_ahead() -> None:
    assert replace(BUSY, running=5).wait(INTERACTIVE, 14) == 2.0


def test_more_jobs_running_than_slots_are_no_free_slots() -> None:
    assert replace(BUSY, running=30).wait(INTERACTIVE, 0) == 0.2


def test_an_interactive_job_reckons_with_one_bulk_turn_in_eight() -> None:
    assert replace(BUSY, bulk=1000).wait(INTERACTIVE, 69) == 16.0
    assert replace(BUSY, bulk=2).wait(INTERACTIVE, 69) == 14.4


def test_a_bulk_job_waits_for_the_interactive_ones_ahead_of_it_but_not_beyond_its_eighth() -> None:
    assert replace(BUSY, interactive=5, bulk=4).wait(BULK, 9) == 2.0
    assert replace(BUSY, interactive=1000).wait(BULK, 1000) == 1.6


def test_a_bulk_job_reckons_with_newcomers_in_the_other_lane() -> None:
    """Four of five turns a second went to interactive jobs of late."""
    assert replace(BUSY, bulk=9, interactive_rate=4.0).wait(BULK, 9) == 10.0
    assert replace(BUSY, bulk=9, interactive_rate=99.0).wait(BULK, 9) == 16.0


@pytest.mark.parametrize("line", [BUSY, replace(BUSY, interactive=30, bulk=50, interactive_rate=3.0)])
@pytest.mark.parametrize("priority", Priority)
def test_nobody_waits_less_than_those_ahead(line: Backlog, priority: Priority) -> None:
    first = line.interactive if priority is BULK else 0
    waits = [line.wait(priority, ahead) or 0 for ahead in range(first, 200)]
    assert waits == sorted(waits)


def test_interactive_jobs_are_ahead_of_bulk_and_not_the_other_way_round() -> None:
    line = replace(BUSY, interactive=3, bulk=4)
    assert (line.jobs_ahead(INTERACTIVE), line.jobs_ahead(BULK)) == (3, 7)
