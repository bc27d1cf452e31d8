"""Who is let in: the length of the line, its pace, and each caller's own rate. No worker runs; the test plays it."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import redis

from jobs.ledger.ledger import Ledger
from jobs.model import Priority
from jobs.redis.keys import PACE
from jobs.settings import JobsSettings
from tests.support.api_server import ApiServer, running_api
from tests.support.jobs import beat, new_job, result
from tests.support.redis_server import RedisServer

SCAN = "/api/v1/scan"
CLASSIFY = f"{SCAN}/classify"
PHOTO = {"image_url": "https://photos.example/cup.jpg"}
BULK = PHOTO | {"priority": "bulk"}


async def fill(ledger: Ledger, count: int, priority: Priority = Priority.INTERACTIVE) -> None:
    await asyncio.gather(*(ledger.submissions.create(new_job(priority=priority)) for _ in range(count)))


async def fleet(ledger: Ledger, *, slots: int, turn: float) -> None:
    """Workers whose slots are all taken, each by jobs of `turn` seconds."""
    await ledger.fleet.beat(beat(concurrency=slots))
    for _ in range(slots):
        assert await ledger.claims.claim((await ledger.submissions.create(new_job())).job_id)
    await ledger.client.hset(PACE, mapping={"at": time.time(), "seconds": turn, "turns": 1})


def refusal(reply: httpx.Response) -> tuple[int, str, str | None]:
    return reply.status_code, reply.json()["code"], reply.headers.get("retry-after")


async def test_a_job_hears_its_place_and_its_wait_at_once_and_later(api: ApiServer, ledger: Ledger) -> None:
    await fleet(ledger, slots=2, turn=4.0)
    await fill(ledger, 3)
    await fill(ledger, 5, Priority.BULK)
    for body, place, wait in ((PHOTO, 4, 8.0), (BULK, 10, 20.0)):
        taken = (await api.client.post(SCAN, json=body)).json()
        assert (taken["queue_position"], taken["estimated_wait"]) == (place, wait)
        shown = (await api.client.get(taken["status_url"])).json()
        assert (shown["queue_position"], shown["estimated_wait"]) == (place, wait)
        assert shown["priority"] == body.get("priority", "interactive")


async def test_a_running_or_ended_job_has_no_wait(api: ApiServer, ledger: Ledger) -> None:
    await fleet(ledger, slots=1, turn=1.0)
    claim = await ledger.claims.claim((await ledger.submissions.create(new_job())).job_id)
    assert claim
    running = (await api.client.get(f"{SCAN}/{claim.job_id}")).json()
    await ledger.claims.complete(claim, result())
    ended = (await api.client.get(f"{SCAN}/{claim.job_id}")).json()
    assert [(view["queue_position"], view["estimated_wait"]) for view in (running, ended)] == [(None, None)] * 2


async def test_a_bulk_job_is_sent_to_the_bulk_queue(api: ApiServer, jobs_settings: JobsSettings) -> None:
    for body in (PHOTO, BULK, BULK):
        await api.client.post(SCAN, json=body)
    with redis.Redis.from_url(jobs_settings.broker) as client:
        assert [client.llen(jobs_settings.queue_of(lane)) for lane in Priority] == [1, 2]


# --- the length of the line ---


async def test_a_full_queue_says_when_it_will_have_drained(jobs_settings: JobsSettings, ledger: Ledger) -> None:
    """Four too many, at half a turn a second."""
    await fleet(ledger, slots=2, turn=4.0)
    await fill(ledger, 13)
    async with running_api(jobs_settings, max_queued=10) as api:
        reply = await api.client.post(SCAN, json=PHOTO)
    assert refusal(reply) == (503, "queue.saturated", "8")


@pytest.mark.parametrize(("turn", "retry_after"), [(4000.0, "300"), (0.001, "1")])
async def test_the_pause_asked_for_is_bounded(
    jobs_settings: JobsSettings, ledger: Ledger, turn: float, retry_after: str
) -> None:
    await fleet(ledger, slots=1, turn=turn)
    await fill(ledger, 5)
    async with running_api(jobs_settings, max_queued=5) as api:
        assert refusal(await api.client.post(SCAN, json=PHOTO)) == (503, "queue.saturated", retry_after)


async def test_without_a_pace_a_full_queue_asks_for_a_constant_pause(
    jobs_settings: JobsSettings, ledger: Ledger
) -> None:
    await fill(ledger, 5)
    async with running_api(jobs_settings, max_queued=5) as api:
        assert refusal(await api.client.post(SCAN, json=PHOTO)) == (503, "queue.saturated", "5")


async def test_a_lane_full_of_bulk_jobs_keeps_no_interactive_one_out(
    jobs_settings: JobsSettings, ledger: Ledger
) -> None:
    await fill(ledger, 5, Priority.BULK)
    async with running_api(jobs_settings, max_queued=5) as api:
        assert (await api.client.post(SCAN, json=BULK)).status_code == 503
        assert (await api.client.post(SCAN, json=PHOTO)).status_code == 202


async def test_a_repeat_gets_its_job_from_a_full_queue(jobs_settings: JobsSettings, ledger: Ledger) -> None:
    async with running_api(jobs_settings, max_queued=5) as api:
        first = await api.client.post(SCAN, json=PHOTO, headers={"Idempotency-Key": "k"})
        await fill(ledger, 5)
        again = await api.client.post(SCAN, json=PHOTO, headers={"Idempotency-Key": "k"})
        other = await api.client.post(SCAN, json=PHOTO, headers={"Idempotency-Key": "k2"})
    assert (again.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
    assert other.status_code == 503


async def test_a_job_whose_deadline_would_pass_while_it_waits_is_refused(api: ApiServer, ledger: Ledger) -> None:
    """39 ahead, at one turn a second."""
    await fleet(ledger, slots=4, turn=4.0)
    await fill(ledger, 39)
    early = await api.client.post(SCAN, json=PHOTO, headers={"Cancel-After": "30s"})
    assert refusal(early) == (503, "queue.saturated", "10")
    assert (await api.client.post(SCAN, json=PHOTO, headers={"Cancel-After": "41s"})).status_code == 202


async def test_each_lane_is_judged_by_its_own_wait(api: ApiServer, ledger: Ledger) -> None:
    await fleet(ledger, slots=4, turn=4.0)
    await fill(ledger, 39, Priority.BULK)
    assert (await api.client.post(SCAN, json=BULK, headers={"Cancel-After": "30s"})).status_code == 503
    assert (await api.client.post(SCAN, json=PHOTO, headers={"Cancel-After": "30s"})).status_code == 202


async def test_refusals_and_lanes_are_counted(jobs_settings: JobsSettings, ledger: Ledger) -> None:
    await fleet(ledger, slots=1, turn=10.0)
    await fill(ledger, 3)
    await fill(ledger, 2, Priority.BULK)
    async with running_api(jobs_settings, max_queued=5, rate_limit=1, rate_burst=2) as api:
        for body in (BULK, PHOTO, PHOTO):
            await api.client.post(SCAN, json=body, headers={"Cancel-After": "30s"})
        figures = (await api.client.get("/metrics")).text.splitlines()
    assert {line for line in figures if line.startswith(("bunri_submits_refused_total", "bunri_jobs_queued{"))} == {
        'bunri_submits_refused_total{reason="depth"} 1.0',
        'bunri_submits_refused_total{reason="deadline"} 1.0',
        'bunri_submits_refused_total{reason="rate"} 1.0',
        'bunri_jobs_queued{priority="interactive"} 3.0',
        'bunri_jobs_queued{priority="bulk"} 2.0',
    }
    assert "bunri_workers_slots 1.0" in figures


# --- each caller's rate ---


@pytest.fixture
async def strict(jobs_settings: JobsSettings) -> AsyncIterator[ApiServer]:
    """Three at once, then one in ten seconds."""
    async with running_api(jobs_settings, rate_limit=6, rate_burst=3) as api:
        yield api


async def post(api: ApiServer, caller: str, path: str = SCAN, **headers: str) -> httpx.Response:
    """As a trusted proxy on this host passes it on."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.client.post(path, json=PHOTO, headers={"X-Forwarded-For": caller} | named)


async def test_a_caller_over_its_rate_is_told_when_to_come_back(strict: ApiServer) -> None:
    taken = [await post(strict, "203.0.113.7") for _ in range(3)]
    assert [(reply.status_code, reply.headers["ratelimit-remaining"]) for reply in taken] == [
        (202, "2"),
        (202, "1"),
        (202, "0"),
    ]
    refused = await post(strict, "203.0.113.7")
    assert refusal(refused)[:2] == (429, "request.rate_limited")
    assert refused.json()["retryable"] is True
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert {name: refused.headers[f"ratelimit-{name}"] for name in ("limit", "remaining")} == {
        "limit": "3",
        "remaining": "0",
    }
    assert 20 < int(refused.headers["ratelimit-reset"]) <= 30
    assert await strict.services.ledger.fleet.depth() == 3


async def test_a_noisy_caller_does_not_touch_another(strict: ApiServer) -> None:
    noisy = await asyncio.gather(*(post(strict, "203.0.113.7") for _ in range(50)))
    assert sum(reply.status_code == 202 for reply in noisy) == 3
    assert {reply.status_code for reply in noisy} == {202, 429}
    assert (await post(strict, "203.0.113.8")).status_code == 202


async def test_the_addresses_of_one_ipv6_customer_count_together(strict: ApiServer) -> None:
    replies = [await post(strict, f"2001:db8:1:2::{n}") for n in range(1, 5)]
    assert [reply.status_code for reply in replies] == [202, 202, 202, 429]
    assert (await post(strict, "2001:db8:1:3::1")).status_code == 202


async def test_all_api_processes_count_together(jobs_settings: JobsSettings, strict: ApiServer) -> None:
    async with running_api(jobs_settings, rate_limit=6, rate_burst=3) as other:
        replies = [await post(api, "203.0.113.7") for api in (strict, other, strict, other)]
    assert [reply.status_code for reply in replies] == [202, 202, 202, 429]


async def test_a_repeat_counts_and_a_refusal_does_not(strict: ApiServer, ledger: Ledger) -> None:
    replies = [await post(strict, "203.0.113.7", Idempotency_Key="k") for _ in range(6)]
    assert [reply.status_code for reply in replies] == [202] * 3 + [429] * 3
    assert {reply.headers["ratelimit-reset"] for reply in replies[3:]} <= {"29", "30"}
    assert await ledger.fleet.depth() == 1


async def test_reads_are_not_limited(strict: ApiServer) -> None:
    path = (await post(strict, "203.0.113.7")).json()["status_url"]
    replies = [await strict.client.get(path, headers={"X-Forwarded-For": "203.0.113.7"}) for _ in range(10)]
    assert {reply.status_code for reply in replies} == {200}


async def test_a_legacy_caller_over_its_rate_gets_a_failed_classification(strict: ApiServer) -> None:
    for _ in range(3):
        await post(strict, "203.0.113.7")
    reply = await post(strict, "203.0.113.7", CLASSIFY)
    assert (reply.status_code, reply.json()["status"], reply.json()["error"]["code"]) == (
        200,
        "failed",
        "request.rate_limited",
    )


async def test_without_a_limit_there_are_no_headers_of_one(api: ApiServer) -> None:
    replies = [await api.client.post(SCAN, json=PHOTO) for _ in range(40)]
    assert {reply.status_code for reply in replies} == {202}
    assert not any(name.startswith("ratelimit") for name in replies[0].headers)


# --- Redis itself is full ---


@pytest.mark.parametrize("rate_limit", [0, 600])
async def test_a_full_redis_is_a_503_that_says_when_to_come_back_and_new_jobs_flow_when_there_is_room(
    jobs_settings: JobsSettings, redis_server: RedisServer, rate_limit: int
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        async with running_api(jobs_settings, rate_limit=rate_limit) as api:
            client.config_set("maxmemory", 1)
            try:
                reply = await api.client.post(SCAN, json=PHOTO, headers={"Idempotency-Key": "k"})
            finally:
                client.config_set("maxmemory", 0)
            assert refusal(reply) == (503, "queue.unavailable", "5")
            assert (await api.client.post(SCAN, json=PHOTO, headers={"Idempotency-Key": "k"})).status_code == 202
            assert await api.services.ledger.fleet.depth() == 1
