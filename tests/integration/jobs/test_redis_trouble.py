"""Redis that is full, read-only, forgetful, silent or empty: what the api says and what the jobs that run do."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobs.broker.queue import JobQueue
from jobs.errors import LedgerUnavailable
from jobs.feed.feed import Feed
from jobs.leadership import Leadership
from jobs.ledger.ledger import Ledger
from jobs.model import JobError, JobStatus
from jobs.redis.keys import LEADER, LEASES, WORKERS
from jobs.settings import JobsSettings
from pipeline.types import Stage
from tests.support.api_server import ApiServer, running_api
from tests.support.image_server import ImageServer, image_server, reply, silence
from tests.support.jobs import completed, new_job, observation, paid, result
from tests.support.openai_server import late, openai_server, well_behaved
from tests.support.redis_server import RedisServer, closed_port, start_redis
from tests.support.relay import relay
from tests.support.wait import eventually
from tests.support.worker import PHOTO, SLOTS, ended, submit, working
from workers.execute.write_retry import retry_write
from workers.maintenance.sweep import Rescuer

FAILURE = JobError(code="source.forbidden", retryable=False, trace_id="t")
BODY = {"image_url": "https://8.8.8.8/a.jpg"}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that may be ruined."""
    server = start_redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def own_settings(own_redis: RedisServer) -> JobsSettings:
    return JobsSettings.model_validate({"redis_url": own_redis.url, "lease": 3.0})


@pytest.fixture
async def own_ledger(own_settings: JobsSettings) -> AsyncIterator[Ledger]:
    ledger = Ledger.connect(own_settings)
    yield ledger
    await ledger.close()


@pytest.fixture
async def own_api(own_settings: JobsSettings) -> AsyncIterator[ApiServer]:
    async with running_api(own_settings) as api:
        yield api


async def says(api: ApiServer) -> str:
    """Why /readyz is 503."""
    answer = await api.client.get("/readyz")
    assert answer.status_code == 503
    ledger: dict[str, str] = answer.json()["checks"]["ledger"]
    return ledger["detail"]


async def fill(ledger: Ledger) -> None:
    await ledger.client.config_set("maxmemory-policy", "noeviction")
    await ledger.client.config_set("maxmemory", 1)


async def test_a_full_redis_refuses_new_jobs_and_says_so(own_api: ApiServer, own_ledger: Ledger) -> None:
    await fill(own_ledger)
    refused = await own_api.client.post("/api/v1/scan", json=BODY)
    assert (refused.status_code, refused.json()["code"]) == (503, "queue.unavailable")
    assert "retry-after" in refused.headers
    assert "full" in await says(own_api)
    await own_ledger.client.config_set("maxmemory", 0)
    assert (await own_api.client.post("/api/v1/scan", json=BODY)).status_code == 202


async def test_in_a_full_redis_jobs_that_were_taken_come_to_their_end(own_ledger: Ledger) -> None:
    ids = [(await own_ledger.submissions.create(new_job())).job_id for _ in range(5)]
    one, two, three, four = [await own_ledger.claims.claim(job_id) for job_id in ids[:4]]
    assert one
    assert two
    assert three
    assert four
    await fill(own_ledger)
    await own_ledger.claims.record(one, completed(Stage.VISION, observation()))
    await own_ledger.claims.complete(one, result())
    await own_ledger.claims.fail(two, FAILURE)
    await own_ledger.claims.retry(three, "model.timeout", delay=0, spent=paid())
    await own_ledger.claims.release(four)
    assert await own_ledger.claims.claim(ids[4])
    await own_ledger.submissions.cancel(ids[4])
    statuses = [job.status for job_id in ids if (job := await own_ledger.submissions.get(job_id))]
    assert statuses == [
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.QUEUED,
        JobStatus.QUEUED,
        JobStatus.CANCELLED,
    ]


async def test_a_policy_that_forgets_jobs_is_named(own_api: ApiServer, own_ledger: Ledger) -> None:
    await own_ledger.client.config_set("maxmemory-policy", "allkeys-lru")
    assert "allkeys-lru" in await says(own_api)


async def test_a_read_only_replica_is_named(own_api: ApiServer, own_ledger: Ledger) -> None:
    await own_ledger.client.replicaof("127.0.0.1", str(closed_port()))
    await eventually(lambda: _says(own_api, "replica"))  # Connections that it cut are found broken first.
    refused = await own_api.client.post("/api/v1/scan", json=BODY)
    assert (refused.status_code, refused.json()["code"]) == (503, "queue.unavailable")


async def test_the_jobs_of_a_redis_that_came_back_empty_are_not_found(own_api: ApiServer, own_ledger: Ledger) -> None:
    job_id = (await own_api.client.post("/api/v1/scan", json=BODY)).json()["job_id"]
    await own_ledger.client.flushall()
    for path in ("", "/result", "/events"):
        answer = await own_api.client.get(f"/api/v1/scan/{job_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job.not_found")
    assert (await own_api.client.post("/api/v1/scan", json=BODY)).status_code == 202


async def test_a_silent_redis_stalls_neither_the_loop_nor_the_health_check(
    own_api: ApiServer, own_redis: RedisServer
) -> None:
    await own_api.client.post("/api/v1/scan", json=BODY)
    own_redis.pause()
    try:
        submitting = asyncio.create_task(own_api.client.post("/api/v1/scan", json=BODY))
        checks = 0
        while not submitting.done():
            assert (await own_api.client.get("/healthz")).status_code == 200
            checks += 1
        assert (await submitting).status_code == 503
        assert checks > 20
    finally:
        own_redis.resume()
    answer = await own_api.client.post("/api/v1/scan", json=BODY)
    assert answer.status_code == 202


@pytest.mark.timeout(300)
async def test_a_silence_while_a_model_works_costs_no_second_call(
    own_ledger: Ledger, own_settings: JobsSettings, own_redis: RedisServer, samples: Path
) -> None:
    """Longer than the lease: nobody could renew, so nobody is taken for dead."""
    queue, feed = JobQueue.connect(own_settings), Feed(own_ledger)
    await feed.start()
    with openai_server() as model, image_server() as origin:
        model.fallback = lambda request: late(well_behaved(request), 1.0)
        origin.on(PHOTO, reply(200, (samples / "glass-1.jpg").read_bytes()))
        async with working(own_ledger, own_redis.url, model):
            job_id = await submit(own_ledger, queue, origin.url(PHOTO))
            await eventually(lambda: _has_asked(model, 1))
            own_redis.pause()
            await asyncio.sleep(2 * own_settings.lease)  # the silence itself
            own_redis.resume()
            job = await ended(feed, job_id)
    assert (job.status, job.attempts, len(model.requests)) == ("completed", 1, 2)
    await feed.close()
    await queue.close()


@pytest.mark.timeout(300)
async def test_jobs_end_at_their_first_attempt_although_every_connection_of_their_worker_breaks_again_and_again(
    ledger: Ledger, feed: Feed, redis_server: RedisServer, jobs_settings: JobsSettings, samples: Path
) -> None:
    queue = JobQueue.connect(jobs_settings)
    with openai_server() as model, image_server() as origin:
        model.fallback = lambda request: late(well_behaved(request), 0.3)
        origin.on(PHOTO, reply(200, (samples / "glass-1.jpg").read_bytes()))
        async with relay(redis_server.port) as wire:
            behind = f"redis://127.0.0.1:{wire.port}/0"
            async with working(ledger, behind, model, RESULT_CACHE_TTL="0", WORKERS_LEASE="15") as process:
                for number in range(5):
                    asked = len(model.requests)
                    ids = [await submit(ledger, queue, origin.url(PHOTO), user_input=f"{number} {n}") for n in range(4)]
                    await eventually(lambda asked=asked: _has_asked(model, asked + 1))  # type: ignore[misc]
                    wire.reset()
                    jobs = [await ended(feed, job_id) for job_id in ids]
                    assert {(job.status, job.attempts) for job in jobs} == {("completed", 1)}
                assert process.poll() is None
    assert len(model.requests) == 5 * 4 * 2
    await queue.close()


async def test_after_a_silence_the_living_have_their_turn_before_their_jobs_are_taken_back(ledger: Ledger) -> None:
    claim = await ledger.claims.claim((await ledger.submissions.create(new_job())).job_id)
    assert claim
    rescuer = Rescuer(ledger, lease=0.3)
    await ledger.client.hset(f"bunri:job:{claim.job_id}", "lease_until", 1)
    await ledger.client.zadd(LEASES, {claim.job_id: 1})
    await rescuer.rescue_stalled()  # The first after a silence, for all it knows.
    await ledger.claims.renew(claim)
    await ledger.client.hset(f"bunri:job:{claim.job_id}", "lease_until", 1)
    await ledger.client.zadd(LEASES, {claim.job_id: 1})

    async def is_taken_back() -> bool:
        await rescuer.rescue_stalled()
        job = await ledger.submissions.get(claim.job_id)
        return job is not None and job.status is JobStatus.QUEUED

    await eventually(is_taken_back)


async def test_a_write_is_repeated_until_redis_takes_it_and_given_up_in_time() -> None:
    asked = 0

    async def takes_the_second() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise LedgerUnavailable("meant")
        return "written"

    now = asyncio.get_running_loop().time()
    assert await retry_write(takes_the_second, deadline=now + 60) == "written"
    asked = 0
    with pytest.raises(LedgerUnavailable):
        await retry_write(takes_the_second, deadline=now)


async def test_a_cancellation_is_heeded_at_whatever_step_of_a_command_it_comes(ledger: Ledger) -> None:
    steps = 0
    while True:
        asking = asyncio.create_task(ledger.ping())
        for _ in range(steps):
            await asyncio.sleep(0)
        if not asking.cancel():
            break
        await asyncio.wait([asking])
        assert asking.cancelled()
        steps += 1
    assert steps > 0


async def test_one_worker_leads_until_it_resigns_or_is_gone(ledger: Ledger) -> None:
    first, second = Leadership(ledger, "first"), Leadership(ledger, "second")
    await first.seek()
    await second.seek()
    assert (first.is_ours, second.is_ours) == (True, False)
    assert await ledger.client.pttl(LEADER) > 0
    await second.resign()
    await first.seek()
    assert first.is_ours
    await first.resign()
    await second.seek()
    assert (first.is_ours, second.is_ours) == (False, True)
    await ledger.client.delete(LEADER)  # as its time does, when the leader is killed
    await first.seek()
    assert first.is_ours


async def test_only_the_leader_sweeps(ledger: Ledger) -> None:
    swept: list[str] = []

    async def sweep() -> None:
        swept.append("once")

    leader, other = Leadership(ledger, "first"), Leadership(ledger, "second")
    await leader.seek()
    await other.seek()
    await leader.led(sweep)()
    await other.led(sweep)()
    assert swept == ["once"]


@pytest.mark.timeout(300)  # Two workers start one after the other.
async def test_workers_of_which_one_is_killed_go_on_being_swept(
    ledger: Ledger, feed: Feed, redis_url: str, jobs_settings: JobsSettings, samples: Path
) -> None:
    """Kill the leader with every slot taken: it beats until then, and another takes over the sweep and its jobs."""
    queue = JobQueue.connect(jobs_settings)
    with openai_server() as model, image_server() as origin:
        origin.on(PHOTO, reply(200, (samples / "glass-1.jpg").read_bytes()))
        async with working(ledger, redis_url, model, RESULT_CACHE_TTL="0") as first:
            model.fallback = lambda _request: silence()
            ids = [await submit(ledger, queue, origin.url(PHOTO), user_input=str(n)) for n in range(SLOTS)]
            await eventually(lambda: _has_asked(model, SLOTS))
            beats = await ledger.client.zrange(WORKERS, 0, -1, withscores=True)
            await eventually(lambda: _has_beaten_again(ledger, beats))
            model.fallback = well_behaved
            async with working(ledger, redis_url, model, RESULT_CACHE_TTL="0"):
                first.send_signal(signal.SIGKILL)
                first.wait()
                jobs = [await ended(feed, job_id, within=60) for job_id in ids]
    assert {(job.status, job.attempts) for job in jobs} == {("completed", 2)}
    assert await ledger.client.exists("unacked", "unacked_index") == 0
    await queue.close()


async def _says(api: ApiServer, word: str) -> bool:
    return word in await says(api)


async def _has_beaten_again(ledger: Ledger, beats: object) -> bool:
    return bool(await ledger.client.zrange(WORKERS, 0, -1, withscores=True) != beats)


async def _has_asked(model: ImageServer, count: int) -> bool:
    return len(model.requests) >= count
