"""The ledger against a real Redis: transitions, claims, fencing, idempotency, the sweep's finds."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import orjson
import pytest

from jobs.errors import IdempotencyMismatch, LedgerUnavailable, StaleClaim
from jobs.ledger.ledger import Ledger
from jobs.model import TRANSITIONS, Claim, JobError, JobStatus, Priority
from jobs.redis.keys import DEADLINES, LEASES, OUTBOX, QUEUED
from jobs.settings import JobsSettings
from pipeline.types import Stage
from tests.support.jobs import answer, completed, new_job, observation, paid, result, started
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

FAILURE = JobError(code="source.forbidden", retryable=False, trace_id="t")


async def claimed(ledger: Ledger, *, deadline: float = 60.0) -> Claim:
    created = await ledger.submissions.create(new_job(deadline=deadline))  # the one float is the deadline
    claim = await ledger.claims.claim(created.job_id)
    assert claim is not None
    return claim


async def lapsed(ledger: Ledger, job_id: str) -> bool:
    return job_id in await ledger.upkeep.rescue_stalled()


async def status(ledger: Ledger, job_id: str) -> JobStatus:
    job = await ledger.submissions.get(job_id)
    assert job is not None
    return job.status


async def test_a_new_job_is_queued_with_its_first_event_and_a_place_in_the_queue(ledger: Ledger) -> None:
    first, second = new_job(), new_job()
    await ledger.submissions.create(first)
    await ledger.submissions.create(second)
    job = await ledger.submissions.get(second.job_id)
    assert job is not None
    assert (job.status, job.stage, job.queue_position) == (JobStatus.QUEUED, Stage.QUEUED, 2)
    assert job.input == second.input
    [event] = await ledger.submissions.events(second.job_id)
    assert orjson.loads(event.data)["status"] == "completed"


async def test_an_unknown_job_is_none(ledger: Ledger) -> None:
    assert await ledger.submissions.get("nothing") is None
    assert await ledger.submissions.cancel("nothing") is None
    assert await ledger.claims.claim("nothing") is None


async def test_a_repeat_with_the_same_key_and_request_is_the_first_job(ledger: Ledger) -> None:
    job = new_job()
    first = await ledger.submissions.create(job, idempotency_key="k", fingerprint="f")
    again = await ledger.submissions.create(new_job(), idempotency_key="k", fingerprint="f")
    assert (first.job_id, first.is_new, first.is_waiting) == (job.job_id, True, True)
    assert (again.job_id, again.is_new, again.is_waiting) == (job.job_id, False, True)


async def test_a_repeat_of_a_job_that_a_worker_has_taken_needs_no_message(ledger: Ledger) -> None:
    job = new_job()
    await ledger.submissions.create(job, idempotency_key="k", fingerprint="f")
    await ledger.claims.claim(job.job_id)
    assert not (await ledger.submissions.create(new_job(), idempotency_key="k", fingerprint="f")).is_waiting


async def test_a_key_whose_job_is_forgotten_is_free_again(ledger: Ledger) -> None:
    first = await ledger.submissions.create(new_job(), idempotency_key="k", fingerprint="f")
    await ledger.client.delete(f"bunri:job:{first.job_id}")
    again = await ledger.submissions.create(new_job(), idempotency_key="k", fingerprint="another")
    assert again.is_new
    assert again.job_id != first.job_id


async def test_the_same_key_with_another_request_is_refused(ledger: Ledger) -> None:
    await ledger.submissions.create(new_job(), idempotency_key="k", fingerprint="a")
    with pytest.raises(IdempotencyMismatch):
        await ledger.submissions.create(new_job(), idempotency_key="k", fingerprint="b")


async def test_concurrent_repeats_create_one_job(ledger: Ledger) -> None:
    made = await asyncio.gather(
        *(ledger.submissions.create(new_job(), idempotency_key="k", fingerprint="a") for _ in range(20))
    )
    assert len({created.job_id for created in made}) == 1
    assert sum(created.is_new for created in made) == 1


async def test_only_one_of_many_claims_wins(ledger: Ledger) -> None:
    job = await ledger.submissions.create(new_job())
    claims = await asyncio.gather(*(ledger.claims.claim(job.job_id) for _ in range(20)))
    assert sum(claim is not None for claim in claims) == 1


async def test_a_finished_job_has_its_result_before_its_final_event(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.claims.record(claim, completed(Stage.VISION, observation()))
    await ledger.claims.complete(claim, result())
    job = await ledger.submissions.get(claim.job_id)
    assert job is not None
    assert (job.status, job.progress, job.result, job.model) == (JobStatus.COMPLETED, 100, result(), "local/test")
    events = await ledger.submissions.events(claim.job_id)
    last = orjson.loads(events[-1].data)
    assert (last["stage"], last["status"], last["outcome"]) == ("done", "completed", "completed")
    assert [event.seq for event in events] == [orjson.loads(event.data)["seq"] for event in events] == [1, 2, 3, 4]


async def test_an_ended_job_is_in_no_list(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.claims.fail(claim, FAILURE, Stage.FETCH)
    for key in (QUEUED, OUTBOX, LEASES, DEADLINES):
        assert await ledger.client.zscore(key, claim.job_id) is None


async def test_finished_stages_come_back_with_the_next_claim(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.claims.record(claim, completed(Stage.VISION, observation()), completed(Stage.ANSWER, answer()))
    assert await ledger.claims.release(claim)
    again = await ledger.claims.claim(claim.job_id)
    assert again is not None
    assert (again.checkpoints.observation, again.checkpoints.answer) == (observation(), answer())
    assert again.token > claim.token


async def test_an_end_whose_answer_was_lost_can_be_written_again_by_its_holder_alone(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.claims.complete(claim, result())
    ended = (
        await ledger.submissions.get(claim.job_id),
        await ledger.submissions.events(claim.job_id),
        await ledger.fleet.counts(),
    )
    await ledger.claims.complete(claim, result("이것은 버려져요."))
    with pytest.raises(StaleClaim):
        await ledger.claims.fail(claim, FAILURE)
    with pytest.raises(StaleClaim):
        await ledger.claims.complete(claim.model_copy(update={"token": claim.token + 1}), result())
    assert (
        await ledger.submissions.get(claim.job_id),
        await ledger.submissions.events(claim.job_id),
        await ledger.fleet.counts(),
    ) == ended


async def test_a_claimed_job_has_the_version_of_the_pipeline_that_runs_it(ledger: Ledger) -> None:
    created = await ledger.submissions.create(new_job())
    claim = await ledger.claims.claim(created.job_id, version="ba9876543210")
    assert claim
    job = await ledger.submissions.get(created.job_id)
    assert job
    assert job.pipeline_version == "ba9876543210"


async def test_a_stale_holder_writes_nothing(ledger: Ledger) -> None:
    stale = await claimed(ledger)
    await eventually(lambda: lapsed(ledger, stale.job_id))
    current = await ledger.claims.claim(stale.job_id)
    assert current is not None
    events = await ledger.submissions.events(stale.job_id)
    with pytest.raises(StaleClaim):
        await ledger.claims.record(stale, started(Stage.ANSWER))
    with pytest.raises(StaleClaim):
        await ledger.claims.complete(stale, result())
    assert await ledger.submissions.events(stale.job_id) == events
    await ledger.claims.complete(current, result())


async def test_a_renewed_lease_is_not_taken_over(ledger: Ledger) -> None:
    renewed, left = await claimed(ledger), await claimed(ledger)

    async def left_is_reclaimed() -> bool:
        await ledger.claims.renew(renewed)
        return left.job_id in await ledger.upkeep.rescue_stalled()

    await eventually(left_is_reclaimed)
    assert await ledger.claims.claim(renewed.job_id) is None
    assert await ledger.claims.claim(left.job_id) is not None


async def test_a_cancel_ends_the_job_at_once_and_refuses_its_worker(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    job = await ledger.submissions.cancel(claim.job_id)
    assert job is not None
    assert job.status is JobStatus.CANCELLED
    assert job.error is not None
    assert job.error.code == "job.cancelled"
    with pytest.raises(StaleClaim):
        await ledger.claims.complete(claim, result())
    events = await ledger.submissions.events(claim.job_id)
    await ledger.submissions.cancel(claim.job_id)
    assert await ledger.submissions.events(claim.job_id) == events


async def test_a_cancel_after_the_end_changes_nothing(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.claims.complete(claim, result())
    job = await ledger.submissions.cancel(claim.job_id)
    assert job is not None
    assert job.status is JobStatus.COMPLETED


async def test_every_state_moves_only_as_the_table_says(ledger: Ledger) -> None:
    """Each operation is tried in each state; what it did is compared with the table of transitions."""

    async def put_in(state: JobStatus) -> Claim:
        claim = await claimed(ledger)
        match state:
            case JobStatus.QUEUED:
                await ledger.claims.release(claim)
            case JobStatus.COMPLETED:
                await ledger.claims.complete(claim, result())
            case JobStatus.FAILED:
                await ledger.claims.fail(claim, FAILURE)
            case JobStatus.CANCELLED:
                await ledger.submissions.cancel(claim.job_id)
            case JobStatus.RUNNING:
                pass
        return claim

    operations: dict[JobStatus, Callable[[Claim], Awaitable[object]]] = {
        JobStatus.RUNNING: lambda claim: ledger.claims.claim(claim.job_id),
        JobStatus.QUEUED: ledger.claims.release,
        JobStatus.COMPLETED: lambda claim: ledger.claims.complete(claim, result()),
        JobStatus.FAILED: lambda claim: ledger.claims.fail(claim, FAILURE),
        JobStatus.CANCELLED: lambda claim: ledger.submissions.cancel(claim.job_id),
    }
    for state in JobStatus:
        for operation in operations.values():
            claim = await put_in(state)
            with suppress(StaleClaim):
                await operation(claim)
            after = await status(ledger, claim.job_id)
            assert after is state or after in TRANSITIONS[state]


async def test_a_job_past_its_deadline_is_ended_by_the_sweep_whether_it_runs_or_waits(ledger: Ledger) -> None:
    running = await claimed(ledger, deadline=0.05)
    waiting = await ledger.submissions.create(new_job(deadline=0.05))

    async def both_ended() -> bool:
        await ledger.upkeep.expire_overdue()
        return {await status(ledger, running.job_id), await status(ledger, waiting.job_id)} == {JobStatus.FAILED}

    await eventually(both_ended)
    job = await ledger.submissions.get(waiting.job_id)
    assert job is not None
    assert job.error is not None
    assert job.error.code == "job.deadline_exceeded"


async def test_a_job_given_up_ends_as_one_past_its_deadline_and_an_ended_one_keeps_its_end(ledger: Ledger) -> None:
    for claim in (await claimed(ledger), None):
        job_id = claim.job_id if claim else (await ledger.submissions.create(new_job())).job_id
        job = await ledger.submissions.give_up(job_id)
        assert job is not None
        assert job.error is not None
        assert (job.status, job.error.code) == (JobStatus.FAILED, "job.deadline_exceeded")
        if claim:
            with pytest.raises(StaleClaim):
                await ledger.claims.complete(claim, result())
    ended = await claimed(ledger)
    await ledger.claims.complete(ended, result())
    kept = await ledger.submissions.give_up(ended.job_id)
    assert kept is not None
    assert kept.status is JobStatus.COMPLETED
    assert await ledger.submissions.give_up("nothing") is None


async def test_a_job_that_takes_down_its_workers_is_ended_as_worker_lost(
    ledger: Ledger, jobs_settings: JobsSettings
) -> None:
    job_id = (await ledger.submissions.create(new_job())).job_id
    for _ in range(jobs_settings.max_attempts):
        assert await ledger.claims.claim(job_id) is not None
        await eventually(lambda: lapsed(ledger, job_id))
    job = await ledger.submissions.get(job_id)
    assert job is not None
    assert job.error is not None
    assert job.error.code == "job.worker_lost"


async def due(ledger: Ledger, job_id: str) -> None:
    """Let the time come at which the job's message is sent (again)."""
    await ledger.client.zadd(OUTBOX, {job_id: 1.0})


async def test_a_message_that_no_worker_took_is_sent_again_by_one_sweep_and_later_each_time(ledger: Ledger) -> None:
    job = new_job()
    await ledger.submissions.create(job)
    assert await ledger.upkeep.take_due() == []
    pauses = []
    for _ in range(3):
        await due(ledger, job.job_id)
        assert await ledger.upkeep.take_due() == [(job.job_id, Priority.INTERACTIVE)]
        assert await ledger.upkeep.take_due() == []
        pauses.append((await ledger.client.zscore(OUTBOX, job.job_id) or 0) - await ledger.now())
    assert pauses == pytest.approx([15, 30, 60], abs=2)


async def test_a_claim_ends_the_sending(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    assert await ledger.client.zscore(OUTBOX, claim.job_id) is None
    await due(ledger, claim.job_id)
    assert await ledger.upkeep.take_due() == []
    assert await ledger.client.zscore(OUTBOX, claim.job_id) is None


async def test_a_retry_waits_its_time_even_if_a_message_comes_early(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.claims.retry(claim, "model.timeout", delay=0.5, spent=paid(7))
    assert await ledger.upkeep.take_due() == []
    assert await ledger.claims.claim(claim.job_id) is None
    await eventually(lambda: _is_due(ledger, claim.job_id))
    again = await ledger.claims.claim(claim.job_id)
    assert again is not None
    assert again.retries == {"model.timeout": 1}
    await ledger.claims.fail(again, FAILURE, Stage.VISION, spent=paid(5))
    job = await ledger.submissions.get(claim.job_id)
    assert job is not None
    assert job.usage.output_tokens == 12


async def _is_due(ledger: Ledger, job_id: str) -> bool:
    return job_id in dict(await ledger.upkeep.take_due())


async def test_a_record_of_another_version_is_read_and_ended_all_the_same(ledger: Ledger) -> None:
    late, unreadable = new_job(deadline=0.01), new_job(deadline=0.01)
    for job in (unreadable, late):
        await ledger.submissions.create(job)
    await ledger.client.hset(f"bunri:job:{late.job_id}", "input", '{"image_url": "https://a", "invented": 1}')
    await ledger.client.hset(f"bunri:job:{unreadable.job_id}", mapping={"input": "?", "stage": "daydreaming"})
    await asyncio.sleep(0.05)
    assert sorted(await ledger.upkeep.expire_overdue()) == sorted([late.job_id, unreadable.job_id])
    assert await ledger.upkeep.expire_overdue() == []
    assert await status(ledger, late.job_id) is JobStatus.FAILED


async def test_counts_tell_each_fate(ledger: Ledger) -> None:
    await ledger.claims.complete(await claimed(ledger), result())
    await ledger.claims.fail(await claimed(ledger), FAILURE)
    assert await ledger.fleet.counts() == {"completed": 1, "failed:source.forbidden": 1}


async def test_a_silent_redis_is_ledger_unavailable(redis_server: RedisServer, redis_url: str) -> None:
    ledger = Ledger.connect(JobsSettings.model_validate({"redis_url": redis_url, "redis_timeout": 0.2}))
    await ledger.ping()
    redis_server.pause()
    try:
        with pytest.raises(LedgerUnavailable):
            await ledger.submissions.create(new_job())
    finally:
        redis_server.resume()
    await ledger.close()
