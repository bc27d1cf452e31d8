"""The line of waiting jobs as the ledger's scripts keep it."""

import pytest

from jobs.backlog import BacklogReader
from jobs.broker.queue import JobQueue
from jobs.ledger.ledger import Ledger
from jobs.model import Claim, JobError, Priority
from jobs.redis.keys import OUTBOX, PACE
from jobs.settings import JobsSettings
from tests.support.jobs import beat, new_job, result
from tests.support.wait import eventually
from workers.maintenance.sweep import resend_due

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


async def made(ledger: Ledger, priority: Priority = INTERACTIVE) -> str:
    return (await ledger.submissions.create(new_job(priority=priority))).job_id


async def claimed(ledger: Ledger, job_id: str) -> Claim:
    claim = await ledger.claims.claim(job_id)
    assert claim is not None
    return claim


async def position(ledger: Ledger, job_id: str) -> int | None:
    job = await ledger.submissions.get(job_id)
    assert job is not None
    return job.queue_position


async def test_interactive_jobs_stand_before_bulk_ones_and_each_lane_by_age(ledger: Ledger) -> None:
    lanes = [BULK, INTERACTIVE, BULK, INTERACTIVE]
    ids = [await made(ledger, lane) for lane in lanes]
    assert [await position(ledger, job_id) for job_id in ids] == [3, 1, 4, 2]
    job = await ledger.submissions.get(ids[0])
    assert job is not None
    assert job.priority is BULK


@pytest.mark.parametrize("lane", Priority)
async def test_a_job_that_is_put_back_keeps_its_place(ledger: Ledger, lane: Priority) -> None:
    first, second = await made(ledger, lane), await made(ledger, lane)
    claim = await claimed(ledger, first)
    assert await position(ledger, second) == 1
    await ledger.claims.release(claim)
    assert (await position(ledger, first), await position(ledger, second)) == (1, 2)


async def test_a_job_taken_from_a_dead_worker_keeps_its_place(ledger: Ledger) -> None:
    first, second = await made(ledger, BULK), await made(ledger, BULK)
    await claimed(ledger, first)

    async def is_back() -> bool:
        await ledger.upkeep.rescue_stalled()
        return await position(ledger, first) == 1

    await eventually(is_back)
    assert await position(ledger, second) == 2


async def test_a_message_that_is_sent_again_goes_to_the_jobs_own_lane(
    ledger: Ledger, jobs_settings: JobsSettings
) -> None:
    ids = {lane: await made(ledger, lane) for lane in Priority}
    await ledger.client.zadd(OUTBOX, dict.fromkeys(ids.values(), 1.0))
    queue = JobQueue.connect(jobs_settings)
    await resend_due(ledger, queue)
    await queue.close()
    for lane, job_id in ids.items():
        name = jobs_settings.queue_of(lane)
        message = await ledger.client.lindex(name, 0)
        assert isinstance(message, bytes)
        assert job_id.encode() in message
        await ledger.client.delete(name)


async def test_the_line_tells_who_waits_who_runs_and_how_many_slots_there_are(ledger: Ledger) -> None:
    for lane in (INTERACTIVE, BULK, BULK, INTERACTIVE):
        await made(ledger, lane)
    await claimed(ledger, await made(ledger))
    await ledger.fleet.beat(beat(concurrency=8))
    await ledger.fleet.beat(beat(concurrency=3, worker="host:2"))
    line = await BacklogReader(ledger).read()
    assert (line.interactive, line.bulk, line.running, line.slots, line.mean_service_time) == (2, 2, 1, 11, None)


async def test_a_beat_that_is_old_or_of_an_older_version_adds_no_slots(ledger: Ledger) -> None:
    await ledger.client.zadd("bunri:workers", {beat(concurrency=8).model_dump_json(): await ledger.now() - 16})
    await ledger.client.zadd(
        "bunri:workers", {b'{"worker": "host:2", "pipeline_version": "v", "models": []}': await ledger.now()}
    )
    assert (await BacklogReader(ledger).read()).slots == 0
    assert len(await ledger.fleet.workers()) == 1


async def test_the_pace_is_how_long_jobs_held_their_worker_however_they_left_it(ledger: Ledger) -> None:
    """Each was claimed two seconds before it left, says its record."""
    failure = JobError(code="source.forbidden", retryable=False, trace_id="t")
    claims = [await claimed(ledger, await made(ledger, lane)) for lane in (INTERACTIVE, BULK, INTERACTIVE)]
    for claim in claims:
        await ledger.client.hset(f"bunri:job:{claim.job_id}", "claimed_at", str(await ledger.now() - 2))
    await ledger.claims.complete(claims[0], result())
    await ledger.claims.fail(claims[1], failure)
    await ledger.claims.release(claims[2])
    line = await BacklogReader(ledger).read()
    assert line.mean_service_time == pytest.approx(2, abs=0.5)
    assert line.interactive_rate == pytest.approx(2 / 30, abs=0.01)


async def test_what_ended_without_its_worker_says_nothing_about_the_pace(ledger: Ledger) -> None:
    waiting, running = await made(ledger), await made(ledger)
    await claimed(ledger, running)
    for job_id in (waiting, running):
        await ledger.submissions.cancel(job_id)
    assert await ledger.client.exists(PACE) == 0


async def test_the_pace_forgets(ledger: Ledger) -> None:
    """A job that took ten minutes, five minutes ago, weighs nothing beside one of now."""
    now = await ledger.now()
    await ledger.client.hset(PACE, mapping={"at": str(now - 300), "seconds": "600", "turns": "1", "interactive": "1"})
    line = await BacklogReader(ledger).read()
    assert line.mean_service_time == 600
    assert line.interactive_rate < 0.001
    claim = await claimed(ledger, await made(ledger))
    await ledger.client.hset(f"bunri:job:{claim.job_id}", "claimed_at", str(now - 1))
    await ledger.claims.complete(claim, result())
    assert (await BacklogReader(ledger).read()).mean_service_time == pytest.approx(1, abs=0.9)


async def test_a_waiting_job_shows_its_wait_and_no_other_does(ledger: Ledger) -> None:
    await ledger.fleet.beat(beat(concurrency=1))
    first = await claimed(ledger, await made(ledger))
    await ledger.client.hset(f"bunri:job:{first.job_id}", "claimed_at", str(await ledger.now() - 2))
    await ledger.claims.release(first)
    await claimed(ledger, first.job_id)
    job_ids = [first.job_id, await made(ledger), await made(ledger)]
    waits = []
    for job_id in job_ids:
        job = await ledger.submissions.get(job_id)
        assert job is not None
        waits.append((await BacklogReader(ledger).with_wait(job)).estimated_wait)
    assert waits == [None, pytest.approx(2, abs=0.5), pytest.approx(4, abs=1)]
