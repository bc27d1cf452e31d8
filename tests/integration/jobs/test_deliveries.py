"""What is still to be delivered, and what became of each attempt, in a real Redis."""

import asyncio
from typing import Any

import pytest

from jobs import deliveries as deliveries_module
from jobs.deliveries import AttemptError, AttemptReport, Begun, Deliveries, Due, Outcome
from jobs.errors import LedgerUnavailable
from jobs.ledger.ledger import Ledger
from jobs.model import JobError
from jobs.redis.keys import DELIVERIES
from jobs.settings import JobsSettings
from tests.support.jobs import new_job, result
from tests.support.wait import eventually

CALLBACK = "https://hooks.example/path-token?token=TOPSECRET"
AGAIN = AttemptReport(status=500, seconds=0.1, outcome=Outcome.RETRY, retry_in=60, next_step=1)
ARRIVED = AttemptReport(status=204, seconds=0.1, outcome=Outcome.DELIVERED)


@pytest.fixture
def deliveries(ledger: Ledger) -> Deliveries:
    return Deliveries(ledger)


async def recorded(ledger: Ledger, **fields: Any) -> str:
    job = new_job(**fields).model_copy(update={"callback_url": CALLBACK})
    await ledger.submissions.create(job)
    return job.job_id


async def completed(ledger: Ledger) -> str:
    job_id = await recorded(ledger)
    claim = await ledger.claims.claim(job_id)
    assert claim
    await ledger.claims.complete(claim, result())
    return job_id


async def taken(deliveries: Deliveries) -> Due:
    [due] = await deliveries.take(10)
    return due


async def begun(deliveries: Deliveries) -> Begun:
    attempt = await deliveries.begin(await taken(deliveries))
    assert attempt
    return attempt


async def bring_forward(ledger: Ledger, job_id: str) -> None:
    """As if the time of its next attempt, or of the end of its lease, had come."""
    await ledger.client.zadd(DELIVERIES, {job_id: 1.0}, xx=True)


async def test_a_job_is_due_for_delivery_as_soon_as_it_has_ended(ledger: Ledger, deliveries: Deliveries) -> None:
    job_id = await recorded(ledger)
    assert await deliveries.take(10) == []
    claim = await ledger.claims.claim(job_id)
    assert claim
    await ledger.claims.complete(claim, result())
    due = await taken(deliveries)
    assert (due.job_id, due.callback_url) == (job_id, CALLBACK)


async def test_a_job_that_was_cancelled_failed_or_came_too_late_is_delivered_as_well(
    ledger: Ledger, deliveries: Deliveries
) -> None:
    cancelled, failed, late = [await recorded(ledger, deadline=deadline) for deadline in (60.0, 60.0, 0.01)]
    await ledger.submissions.cancel(cancelled)
    claim = await ledger.claims.claim(failed)
    assert claim
    await ledger.claims.fail(claim, JobError(code="internal", retryable=False, trace_id="t"))
    await eventually(lambda: _expired(ledger, late))
    assert {due.job_id for due in await deliveries.take(10)} == {cancelled, failed, late}


async def test_a_job_that_took_down_its_workers_is_delivered_as_well(
    jobs_settings: JobsSettings, deliveries: Deliveries
) -> None:
    ledger = Ledger.connect(jobs_settings.model_copy(update={"lease": 0.01, "max_attempts": 1}))
    job_id = await recorded(ledger)
    assert await ledger.claims.claim(job_id)
    await eventually(lambda: _reclaimed(ledger, job_id))
    assert (await taken(deliveries)).job_id == job_id
    await ledger.close()


async def _expired(ledger: Ledger, job_id: str) -> bool:
    return job_id in await ledger.upkeep.expire_overdue()


async def _reclaimed(ledger: Ledger, job_id: str) -> bool:
    return job_id in await ledger.upkeep.rescue_stalled()


async def test_a_job_without_a_callback_is_never_due(ledger: Ledger, deliveries: Deliveries) -> None:
    job = new_job()
    await ledger.submissions.create(job)
    await ledger.submissions.cancel(job.job_id)
    assert await deliveries.take(10) == []
    assert (await deliveries.of(job.job_id)).has_callback is False


async def test_a_delivery_is_handed_to_one_of_many_workers(ledger: Ledger, deliveries: Deliveries) -> None:
    job_ids = [await completed(ledger) for _ in range(5)]
    hands = await asyncio.gather(*(deliveries.take(3) for _ in range(10)))
    assert sorted(due.job_id for hand in hands for due in hand) == sorted(job_ids)


async def test_what_is_put_off_comes_back_and_counts_as_no_attempt(ledger: Ledger, deliveries: Deliveries) -> None:
    job_id = await completed(ledger)
    await taken(deliveries)
    await deliveries.put_off({job_id: 60})
    assert await deliveries.take(10) == []
    await bring_forward(ledger, job_id)
    assert (await begun(deliveries)).number == 1


async def test_what_has_been_delivered_meanwhile_is_not_put_off_again(ledger: Ledger, deliveries: Deliveries) -> None:
    job_id = await completed(ledger)
    await deliveries.end(await begun(deliveries), ARRIVED)
    await deliveries.put_off({job_id: 0})
    assert await deliveries.take(10) == []


async def test_each_attempt_is_noted_and_the_next_one_planned_in_the_same_write(
    ledger: Ledger, deliveries: Deliveries
) -> None:
    job_id = await completed(ledger)
    first = await begun(deliveries)
    assert await deliveries.end(first, AGAIN)
    planned = (await deliveries.of(job_id)).due_at
    assert planned == pytest.approx(await ledger.now() + 60, abs=5)
    await bring_forward(ledger, job_id)
    second = await begun(deliveries)
    assert (first.number, first.step, second.number, second.step) == (1, 0, 2, 1)
    await deliveries.end(second, ARRIVED)
    delivery = await deliveries.of(job_id)
    assert [(each.number, each.status, each.outcome, each.retry_in) for each in delivery.attempts] == [
        (1, 500, "retry", 60),
        (2, 204, "delivered", None),
    ]
    assert delivery.attempts[0].at <= delivery.attempts[1].at
    assert delivery.due_at is None
    assert await deliveries.counts() == {"delivered": 1, "retry": 1, "gave_up": 0, "stopped": 0}


async def test_an_attempt_whose_worker_died_is_noted_and_repeated_after_its_lease(
    ledger: Ledger, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries_module, "LEASE_SECONDS", 0.1)
    job_id = await completed(ledger)
    lost = await begun(deliveries)
    await eventually(lambda: _is_due(deliveries))
    second = await begun(deliveries)
    assert (second.number, second.step) == (2, 0)  # It costs no step of the schedule.
    assert await deliveries.end(lost, AGAIN) is False  # Late, if it was not dead after all.
    [noted] = (await deliveries.of(job_id)).attempts
    assert (noted.number, noted.error, noted.status) == (1, AttemptError.INTERRUPTED, None)


async def _is_due(deliveries: Deliveries) -> bool:
    return await deliveries.due() == 1


async def test_a_hold_that_has_passed_to_another_begins_nothing(ledger: Ledger, deliveries: Deliveries) -> None:
    job_id = await completed(ledger)
    stale = await taken(deliveries)
    await bring_forward(ledger, job_id)
    assert await begun(deliveries)
    assert await deliveries.begin(stale) is None


async def test_a_delivery_can_be_sent_again_with_its_schedule_from_the_start(
    ledger: Ledger, deliveries: Deliveries
) -> None:
    job_id = await completed(ledger)
    given_up = AttemptReport(status=500, outcome=Outcome.GAVE_UP, next_step=7)
    await deliveries.end(await begun(deliveries), given_up)
    assert await deliveries.take(10) == []
    assert await deliveries.resend(job_id) is True
    again = await begun(deliveries)
    assert (again.number, again.step) == (2, 0)


async def test_to_send_again_does_not_disturb_an_attempt_under_way(ledger: Ledger, deliveries: Deliveries) -> None:
    job_id = await completed(ledger)
    attempt = await begun(deliveries)
    assert await deliveries.resend(job_id) is True
    assert await deliveries.take(10) == []
    assert await deliveries.end(attempt, ARRIVED) is True


async def test_to_send_again_before_the_job_has_ended_changes_nothing(ledger: Ledger, deliveries: Deliveries) -> None:
    job_id = await recorded(ledger)
    assert await deliveries.resend(job_id) is True
    assert await deliveries.take(10) == []
    await ledger.submissions.cancel(job_id)
    assert (await taken(deliveries)).job_id == job_id


async def test_only_a_job_with_a_callback_can_be_sent_again(ledger: Ledger, deliveries: Deliveries) -> None:
    job = new_job()
    await ledger.submissions.create(job)
    await ledger.submissions.cancel(job.job_id)
    assert await deliveries.resend(job.job_id) is False
    assert await deliveries.resend("nothing") is False


async def test_a_record_outlives_its_delivery_however_short_results_are_kept(
    jobs_settings: JobsSettings, deliveries: Deliveries
) -> None:
    ledger = Ledger.connect(jobs_settings.model_copy(update={"result_ttl": 1}))
    job_id = await completed(ledger)
    keys = [f"bunri:job:{job_id}{part}" for part in ("", ":events", ":deliveries")]
    await deliveries.end(await begun(deliveries), AGAIN.model_copy(update={"retry_in": 100_000}))
    assert all([await ledger.client.ttl(key) > 150_000 for key in keys])
    await ledger.close()


async def test_a_delivery_whose_record_is_gone_is_forgotten(ledger: Ledger, deliveries: Deliveries) -> None:
    job_id = await completed(ledger)
    await ledger.client.delete(f"bunri:job:{job_id}")
    assert await deliveries.take(10) == []
    assert await deliveries.open() == 0


async def test_no_attempt_begins_for_a_record_that_ran_out_after_it_was_taken(
    ledger: Ledger, deliveries: Deliveries
) -> None:
    job_id = await completed(ledger)
    due = await taken(deliveries)
    await ledger.client.delete(f"bunri:job:{job_id}")
    assert await deliveries.begin(due) is None  # And leaves no key behind, which the fixture looks for.


async def test_attempts_without_end_are_remembered_up_to_a_hundred(ledger: Ledger, deliveries: Deliveries) -> None:
    job_id = await completed(ledger)
    for _ in range(105):
        await deliveries.end(await begun(deliveries), AGAIN)
        await bring_forward(ledger, job_id)
    attempts = (await deliveries.of(job_id)).attempts
    assert [attempts[0].number, attempts[-1].number] == [6, 105]


async def test_trouble_with_redis_is_told_as_such(deliveries: Deliveries, ledger: Ledger) -> None:
    await ledger.client.aclose()
    ledger.client.connection_pool.connection_kwargs["port"] = 1
    with pytest.raises(LedgerUnavailable):
        await deliveries.take(1)


async def test_the_callback_is_in_no_view_of_the_job(ledger: Ledger) -> None:
    job_id = await recorded(ledger)
    claim = await ledger.claims.claim(job_id)
    events = await ledger.submissions.events(job_id)
    assert "TOPSECRET" not in repr((await ledger.submissions.get(job_id), claim, events))
    assert "path-token" not in repr(new_job().model_copy(update={"callback_url": CALLBACK}))
