"""Which queue a worker asks first."""

from itertools import repeat

from jobs.model import Priority
from jobs.settings import JobsSettings
from workers.runtime.channel import MAX_EXTRA_MESSAGES, InteractiveFirst

SETTINGS = JobsSettings.model_validate({})
INTERACTIVE, BULK = (SETTINGS.queue_of(priority) for priority in Priority)


def served(order: InteractiveFirst, waiting: dict[str, int], turns: int) -> list[str]:
    """Play Redis: each turn takes from the first queue that has a message."""
    taken = []
    for _ in repeat(None, turns):
        queue = next(name for name in order.consume(2) if waiting[name])
        waiting[queue] -= 1
        order.rotate(queue)
        taken.append(queue)
    return taken


def order_of(queues: list[str]) -> InteractiveFirst:
    order = InteractiveFirst()
    order.update(queues)
    return order


def test_with_both_lanes_full_one_turn_in_eight_is_bulks() -> None:
    for queues in ([INTERACTIVE, BULK], [BULK, INTERACTIVE]):
        taken = served(order_of(queues), {INTERACTIVE: 1000, BULK: 1000}, 800)
        assert taken == ([INTERACTIVE] * 7 + [BULK]) * 100


def test_an_interactive_job_is_next_however_many_bulk_jobs_wait() -> None:
    order = order_of([INTERACTIVE, BULK])
    waiting = {INTERACTIVE: 0, BULK: 1000}
    served(order, waiting, 50)
    waiting[INTERACTIVE] = 3
    assert served(order, waiting, 4) == [INTERACTIVE] * 3 + [BULK]


def test_without_bulk_jobs_every_turn_is_interactive() -> None:
    assert served(order_of([INTERACTIVE, BULK]), {INTERACTIVE: 50, BULK: 0}, 50) == [INTERACTIVE] * 50


def test_further_messages_are_interactive_and_leave_bulk_its_turn() -> None:
    """Play Redis with requests that bring several: none of them may put off a bulk job that waits."""
    order = order_of([BULK, INTERACTIVE])
    taken: list[str] = []
    while len(taken) < 800:
        first = order.consume(2)[0]
        queue, count = order.more()
        assert queue == INTERACTIVE
        for each in (first, *[queue] * count):
            order.rotate(each)
            taken.append(each)
    assert taken[:800] == ([INTERACTIVE] * 7 + [BULK]) * 100


def test_without_bulk_jobs_each_request_may_bring_several() -> None:
    order = order_of([INTERACTIVE, BULK])
    for _ in range(100):
        order.rotate(INTERACTIVE)
    assert order.more() == (INTERACTIVE, MAX_EXTRA_MESSAGES)


def test_before_the_queues_are_known_nothing_is_asked_for() -> None:
    assert InteractiveFirst().consume(0) == []
