"""The API under its clients, webhooks, a caller that asks for too much, clocks that jump (F28, F31, F33, F35, F36)."""

import asyncio
import base64
import hmac
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx

from tests.chaos.clients import Mode, Watched
from tests.chaos.registry import fault
from tests.chaos.rig import SECRETS, Rig, client_at, wait_for
from tests.chaos.upstreams import LATENCY, Receiver, number_of, serving
from tests.support.image_server import Request, drip, endless, redirect, reply, reset, silence
from tests.support.wait import eventually

CROWD = 20_000
"""Number of the first job of a crowd beside the stream."""

STREAMS, LONG_POLLS = 200, 50
ARRIVE_EVERY = 0.025
"""Seconds between two clients of a crowd: that many are there is the fault, not that they came at once."""

RECONNECT_LIMIT = 5.0
EXIT_LIMIT = 5.0


@asynccontextmanager
async def crowd(rig: Rig, *, streams: int = STREAMS, long_polls: int = 0) -> AsyncIterator[list[Watched]]:
    """Clients that all wait for a job which takes some seconds. In the end each has been told how it ended."""
    modes = [Mode.STREAM] * streams + [Mode.LONG_POLL] * long_polls
    clients = [Watched(CROWD + n, mode) for n, mode in enumerate(modes)]
    rig.watched += clients
    rig.model.latency = 4.0
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(rig.run_client(client))
            await asyncio.sleep(ARRIVE_EVERY)
        await eventually(partial(_are_waiting, clients), within=60)
        yield clients
    rig.model.latency = LATENCY


async def _are_waiting(clients: list[Watched]) -> bool:
    return all(client.is_accepted and (client.events or client.mode is not Mode.STREAM) for client in clients)


@fault("F31", "kill -9 of the API under 200 streams and 50 long polls")
async def f31(rig: Rig) -> None:
    """Clients come back with their last id and miss nothing: each is told 5 s after restart and end at most."""
    await rig.accepted(rig.middle)
    async with crowd(rig, long_polls=LONG_POLLS) as clients:
        at = await rig.kill_api()
        back = await rig.start_api(at)
    await _demand_told(rig, clients, back)


async def _demand_told(rig: Rig, clients: list[Watched], back: float) -> None:
    await rig.look_back()
    late = [(client.ended_at or 1e12) - max(back, client.job["finished_at"]) for client in clients]
    rig.recovered = max(late)
    rig.note("recovered: the longest that a client was told after restart and end")
    rig.demand_within(RECONNECT_LIMIT, rig.recovered, "until a client was told")


@fault("F33", "SIGTERM to the API with 200 open streams")
async def f33(rig: Rig) -> None:
    """It hints when to come back, closes the streams and exits within 5 s; nobody misses anything."""
    await rig.accepted(rig.middle)
    async with crowd(rig) as clients:
        hint = asyncio.create_task(_last_hint(rig, clients[-1]))
        await asyncio.sleep(0.5)
        at = time.time()
        code = await asyncio.to_thread(rig.api.stop, within=15)
        seconds = time.time() - at
        back = await rig.start_api(at)
        rig.demand(await hint, "the stream ended without a hint to come back")
    rig.demand(code in {0, -signal.SIGTERM}, f"it exited with {code}")
    rig.demand_within(EXIT_LIMIT, seconds, "until it had exited")
    rig.note(f"it exited after {seconds:.1f} s")
    await _demand_told(rig, clients, back)


async def _last_hint(rig: Rig, client: Watched) -> bool:
    """Whether the last thing that a stream says is `retry:`."""
    lines: list[str] = []
    try:
        async with rig.http.stream("GET", f"/api/v1/scan/{client.job_id}/events", timeout=30) as answer:
            lines.extend([line async for line in answer.aiter_lines() if line and not line.startswith(":")])
    except httpx.TransportError:
        return False
    return len(lines) > 1 and lines[-1].startswith("retry:")


SHIFTED = "time.time and time.time_ns of the process, which kombu, Celery and we read"


@fault(
    "F28-workers",
    "one worker's clock is 10 minutes ahead, the other's 10 minutes behind",
    started=False,
    simulated=SHIFTED,
)
async def f28_workers(rig: Rig) -> None:
    """Leases and deadlines go by Redis's clock: nothing is redelivered early, nothing ends late."""
    await play_f28(rig, {"worker-1": 600, "worker-2": -600})


@fault("F28-api", "the API's clock is 10 minutes ahead", started=False, simulated=SHIFTED)
async def f28_api(rig: Rig) -> None:
    """Jobs are found and end as ever."""
    await play_f28(rig, {"api": 600})


async def play_f28(rig: Rig, offsets: dict[str, int]) -> None:
    at = time.time()
    clock = rig.folder / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(SITECUSTOMIZE)
    for name, process in rig.processes.items():
        process.start(PYTHONPATH=str(clock), CHAOS_CLOCK_OFFSET=str(offsets.get(name, 0)))
    await rig.until_ready()
    rig.disrupted("no api", at)
    await eventually(rig.have_all_ended, within=200)
    again = [job.number for job in rig.watched if len(rig.model.calls_of(job.number)) > 2]
    rig.demand(not again, f"jobs {again} were run again")


SITECUSTOMIZE = """
import os, time
offset = int(os.environ.get("CHAOS_CLOCK_OFFSET", "0"))
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + offset
time.time_ns = lambda: real_ns() + offset * 10**9
"""
"""What Python runs first in each process that finds it."""


@fault(
    "F01-webhook", "kill -9 of a worker while it delivers a webhook", env={"WORKERS_WEBHOOK_SCHEDULE": "[1, 2, 4, 8]"}
)
async def f01_webhook(rig: Rig) -> None:
    """Another delivers it, under the same webhook-id."""
    job = rig.first_of(Mode.WEBHOOK, rig.middle)
    hold = rig.receiver.hold(job)
    await wait_for(hold.caught)
    began = time.time()
    for worker in rig.workers:  # Which of them delivers is no business of its logs.
        await rig.kill_worker(worker)
    hold.release()
    await eventually(partial(_has_deliveries, rig, job, 2), within=90)
    rig.recovered = time.time() - began
    rig.demand(len(_ids(rig, job)) == 1, "the second delivery has another webhook-id")


async def _has_deliveries(rig: Rig, job: int, count: int) -> bool:
    return len(_deliveries(rig.receiver, job)) >= count


def _deliveries(receiver: Receiver, job: int) -> list[Request]:
    return [request for request in receiver.requests if number_of(request) == job]


def _ids(rig: Rig, job: int) -> set[str]:
    return {request.headers["webhook-id"] for request in _deliveries(rig.receiver, job)}


@fault(
    "F35",
    "webhook receivers of eight bad kinds",
    env={"WORKERS_WEBHOOK_SCHEDULE": "[1, 2, 4, 8]"},
    simulated="the schedule of a day is 15 s",
)
async def f35(rig: Rig) -> None:
    """Delivered in the slot after recovery, signed anew under the same id; 410 stops it, no redirect is followed.

    The others' webhooks come within 2 s of the end of their job.
    """
    bad = Receiver(0)
    kinds = {
        "is down": ([reset()] * 3, 4),
        "answers 500": ([reply(500)] * 2, 3),
        "answers 410": ([reply(410)] * 9, 1),
        "answers 429": ([reply(429, Retry_After="3")], 2),
        "redirects inside": ([redirect("http://169.254.169.254/latest/meta-data/")] * 9, 5),
        "hangs": ([silence()] * 9, 1),
        "drips": ([drip(b"x" * 100_000, 0.05)], 1),
        "sends 10 GB": ([endless(b"x" * 65_536)], 1),
    }
    async with serving(bad):
        jobs = dict(enumerate(kinds.items(), start=rig.middle))
        for job, (_, (answers, _)) in jobs.items():
            rig.special[job] = {"callback_url": bad.url(f"/hook/{job}")}
            rig.job(job).mode = Mode.POLL  # Its client would wait for ever for some of these.
            for answer in answers:
                bad.misbehave(job, answer, times=1)
        for job in jobs:
            await rig.accepted(job)
        for job, (kind, (_, attempts)) in jobs.items():
            await eventually(partial(_has_calls, bad, job, attempts), within=60)
            _demand_signed(rig, bad, job, kind)
        await eventually(rig.have_all_ended, within=100)
        for job, (kind, (_, attempts)) in jobs.items():
            count = len(bad.calls_of(job))
            rig.demand(count == attempts or kind == "hangs", f"a receiver that {kind} was called {count} times")
    await rig.look_back()
    waits = [
        (job.ended_at or 1e12) - job.finished_at
        for job in rig.watched
        if job.mode is Mode.WEBHOOK and job.number not in jobs
    ]
    slowest = sorted(waits)[int(len(waits) * 0.95)] if waits else 0.0
    rig.note(f"others' webhooks p95 {slowest:.2f} s after the end of their job")
    rig.demand_within(2, slowest, "until others had their webhooks")


async def _has_calls(receiver: Receiver, job: int, count: int) -> bool:
    return len(receiver.calls_of(job)) >= count


def _demand_signed(rig: Rig, receiver: Receiver, job: int, kind: str) -> None:
    sent = _deliveries(receiver, job)
    rig.demand(len({request.headers["webhook-id"] for request in sent}) == 1, f"{kind}: the webhook-id changes")
    stamps = [request.headers["webhook-timestamp"] for request in sent]
    rig.demand(len(set(stamps)) == len(stamps), f"{kind}: a timestamp was used twice")
    rig.demand(all(map(is_signed, sent)), f"{kind}: a signature is wrong")


def is_signed(request: Request) -> bool:
    """By Standard Webhooks, with the rig's secret."""
    key = base64.b64decode(SECRETS["hook"].removeprefix("whsec_"))
    signed = b".".join(
        (request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.body)
    )
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return wanted in request.headers["webhook-signature"].split()


@fault("F36", "one caller submits 5 000 jobs", env={"API_RATE_LIMIT": "900", "API_RATE_BURST": "60"})
async def f36(rig: Rig) -> None:
    """It meets 429 with Retry-After; the others are served within twice their usual time."""
    await rig.accepted(rig.middle)
    statuses: Counter[int] = Counter()
    async with client_at(rig, "127.0.0.2") as noisy, asyncio.TaskGroup() as group:
        for lane in range(8):
            group.create_task(_flood(rig, noisy, lane, 5000 // 8, statuses))
    rig.note(f"the noisy caller met {dict(sorted(statuses.items()))}")
    rig.demand(statuses[429] > statuses[202], "the noisy caller was not refused")
    await eventually(rig.have_all_ended, within=200)
    usual = _p95([job.seconds for job in rig.watched[: rig.middle]])
    now = _p95([job.seconds for job in rig.watched[rig.middle :]])
    rig.note(f"others' p95 {usual:.2f} s before, {now:.2f} s with it")
    rig.demand_within(2 * usual, now, "others' p95")


async def _flood(rig: Rig, noisy: httpx.AsyncClient, lane: int, count: int, statuses: Counter[int]) -> None:
    for number in range(count):
        job = CROWD * 2 + lane * count + number
        asked = {"image_url": rig.origin.url(f"/photo/{job}"), "user_input": f"chaos job {job}"}
        try:
            answer = await noisy.post("/api/v1/scan", json=asked)
        except httpx.TransportError:
            statuses[0] += 1
            continue
        statuses[answer.status_code] += 1
        if answer.status_code == 202:
            rig.other_ids.add(answer.json()["job_id"])


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)] if values else 0.0
