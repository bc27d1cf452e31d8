"""A model that is away, limits, breaks off or talks nonsense (F15 to F24)."""

import asyncio
import json
import time
from functools import partial

from tests.chaos.registry import fault
from tests.chaos.rig import Rig
from tests.chaos.upstreams import Outcome
from tests.support import openai_server
from tests.support.image_server import Answer, cut, drip, endless, raw, reply, reset
from tests.support.wait import eventually

STORM_SECONDS = 60.0
AFTER_STORM = 60.0
REJECTED_SHARE = 0.05

BUDGET = 3.0
SHORT_CALLS = {"PIPELINE_MODEL_TIMEOUT": f"{BUDGET:g}"}


async def play_storm(rig: Rig, answer: Answer, *, seconds: float = STORM_SECONDS) -> tuple[float, int]:
    """Answer every call so for a while. Returns when it ended and how many calls it met."""
    await rig.accepted(rig.middle)
    before = len(rig.model.calls)
    rig.model.storm = lambda: answer
    at = time.time()
    await asyncio.sleep(seconds)
    rig.model.storm = None
    rig.disrupted("storm", at)
    rejected = sum(call.outcome is Outcome.BAD for call in rig.model.calls[before:])
    return time.time(), rejected


async def all_ended(rig: Rig, since: float, within: float) -> None:
    await eventually(rig.have_all_ended, within=200, every=0.1)
    rig.recovered = max(job.ended_at or 0 for job in rig.watched) - since
    rig.note("recovered: until the last job had ended")
    rig.demand_within(within, rig.recovered, "from the storm to the last job's end")


@fault("F15", "the model takes connections and says nothing, for 15 s", env=SHORT_CALLS, seconds=20)
async def f15(rig: Rig) -> None:
    """Each call ends within its budget, and is tried again; a job that meets it three times ends as model.timeout."""
    rig.expected_of_all = {"completed", "model.timeout"}
    await rig.accepted(rig.middle)
    at = time.time()
    rig.model_wire.silence()
    await asyncio.sleep(15)
    rig.model_wire.resume()
    rig.disrupted("silent model", at)
    await all_ended(rig, time.time(), AFTER_STORM)


@fault("F16", "429 with Retry-After: 2 for 60 s", seconds=60)
async def f16(rig: Rig) -> None:
    """All workers pause together: rejected calls ≤ 5 % of jobs, no job fails, all have ended 60 s after the storm."""
    ended, rejected = await play_storm(rig, openai_server.problem(429, "rate_limit_exceeded", Retry_After="2"))
    await all_ended(rig, ended, AFTER_STORM)
    share = rejected / rig.jobs
    rig.note(f"{rejected} calls rejected: {share:.1%} of jobs")
    rig.demand(share <= REJECTED_SHARE, f"{rejected} calls were rejected, {share:.0%} of the jobs")


@fault("F17", "429 with Retry-After: 300", env={"WORKERS_JOB_DEADLINE": "30"})
async def f17(rig: Rig) -> None:
    """Jobs are parked and hold no slot; those that cannot wait end as model.rate_limited or at their deadline."""
    rig.expected_of_all = {"completed", "model.rate_limited", "job.deadline_exceeded"}
    await rig.accepted(rig.middle)
    at = time.time()
    rig.model.storm = lambda: openai_server.problem(429, "rate_limit_exceeded", Retry_After="300")
    await eventually(partial(_has_rejected, rig))
    await asyncio.sleep(2)
    running = await _metric(rig, "bunri_jobs_running")
    rig.demand(running <= 3, f"{running:g} jobs held a slot two seconds later")
    rig.note(f"{running:g} jobs running 2 s after the first 429")
    await eventually(rig.have_all_ended, within=120, every=0.1)
    rejected = sum(call.outcome is Outcome.BAD for call in rig.model.calls)
    rig.note(f"{rejected} calls rejected")
    rig.model.storm = None
    rig.disrupted("storm", at)


async def _has_rejected(rig: Rig) -> bool:
    return any(call.outcome is Outcome.BAD for call in rig.model.calls)


async def _metric(rig: Rig, name: str) -> float:
    text = (await rig.http.get("/metrics")).text
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


@fault("F18", "429 insufficient_quota for 10 s")
async def f18(rig: Rig) -> None:
    """A person is called, nothing is retried: one call for each job that meets it, and few jobs do."""
    rig.expected_of_all = {"completed", "model.account"}
    ended, rejected = await play_storm(rig, openai_server.problem(429, "insufficient_quota"), seconds=10)
    await all_ended(rig, ended, AFTER_STORM)
    failed = sum(job.status == "failed" for job in rig.watched)
    rig.note(f"{rejected} calls rejected")
    alerts = sum(entry["level"] == "error" for worker in rig.workers for entry in worker.events("job.failed"))
    rig.demand(alerts or not failed, "no log line of level error")
    most = max(sum(call.outcome is Outcome.BAD for call in rig.model.calls_of(job.number)) for job in rig.watched)
    rig.demand(most <= 1, f"a job was rejected {most} times")


@fault("F19", "500, 502, 503 with HTML and 529 in turn, for 60 s", seconds=60)
async def f19(rig: Rig) -> None:
    """A breaker keeps calls away: three a job at most. Jobs wait, and end as completed or model.unavailable."""
    rig.expected_of_all = {"completed", "model.unavailable", "model.rate_limited"}
    answers = [
        openai_server.problem(500),
        reply(502),
        reply(503, b"<html>busy</html>", Content_Type="text/html"),
        overloaded(),
    ]
    turn = iter(range(1_000_000))
    await rig.accepted(rig.middle)
    rig.model.storm = lambda: answers[next(turn) % len(answers)]
    at = time.time()
    await asyncio.sleep(STORM_SECONDS)
    rig.model.storm = None
    rig.disrupted("outage", at)
    await all_ended(rig, time.time(), AFTER_STORM)
    rejected = [call for call in rig.model.calls if call.outcome is Outcome.BAD]
    most = max((sum(call.job == job.number for call in rejected) for job in rig.watched), default=0)
    rig.note(f"{len(rejected)} calls failed, {most} at most of one job")
    rig.demand(most <= 3, f"a job made {most} failed calls")


def overloaded() -> Answer:
    return raw(b"HTTP/1.1 529 Overloaded\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@fault("F20", "one byte every 50 ms", env=SHORT_CALLS)
async def f20(rig: Rig) -> None:
    """A call ends at its budget however it trickles; the job ends as model.timeout after three of them."""
    job = rig.middle
    rig.expect(job, "model.timeout")
    rig.model.misbehave(job, drip(json.dumps({"output": " " * 5000}).encode(), 0.05), "vision")
    await rig.accepted(job)
    await eventually(partial(rig.has_ended, job), within=60)
    calls = rig.model.calls_of(job, "vision")
    rig.demand(len(calls) <= 3, f"{len(calls)} calls")
    slowest = max((call.ended or time.time()) - call.began for call in calls)
    rig.note(f"the longest of {len(calls)} calls took {slowest:.1f} s")
    rig.demand_within(BUDGET + 2, slowest, "a call")


@fault("F21", "the connection is reset, or ends, in the middle of the answer")
async def f21(rig: Rig) -> None:
    """Once: the job completes with a second call. Each time: it ends as model.unavailable after three calls."""
    body = json.dumps({"output": "x" * 500}).encode()
    once, twice, always = rig.middle, rig.middle + 1, rig.middle + 2
    rig.expect(always, "model.unavailable")
    rig.model.misbehave(once, reset(after=body), "vision", times=1)
    rig.model.misbehave(twice, cut(body, 100), "answer", times=1)
    rig.model.misbehave(always, reset(after=body), "vision")
    for job, most in ((once, 3), (twice, 3), (always, 3)):
        await rig.accepted(job)
        await eventually(partial(rig.has_ended, job), within=60)
        rig.demand(len(rig.model.calls_of(job)) <= most, f"job {job} made {len(rig.model.calls_of(job))} calls")


NONSENSE: dict[str, tuple[Answer, str]] = {
    "HTML": (reply(200, b"<html>hello</html>", Content_Type="text/html"), "model.bad_output"),
    "nothing": (reply(200, b"", Content_Type="application/json"), "model.bad_output"),
    "cut JSON": (reply(200, b'{"id": "resp_1", "outp', Content_Type="application/json"), "model.bad_output"),
    "null": (reply(200, b"null", Content_Type="application/json"), "model.bad_output"),
    "a list": (reply(200, b"[]", Content_Type="application/json"), "model.bad_output"),
    "no output": (openai_server.response("completed", []), "model.bad_output"),
    "cut at its length": (openai_server.incomplete("max_output_tokens"), "model.bad_output"),
    "content filter": (openai_server.incomplete("content_filter"), "model.refused"),
    "refusal": (openai_server.refusal(), "model.refused"),
}

OFF_TAXONOMY: dict[str, Answer] = {
    "unknown category": openai_server.completed(openai_server.SEEN | {"middle_category": "우주쓰레기"}),
    "missing field": openai_server.completed({"middle_category": "유리병"}),
    "1e999": openai_server.completed(json.dumps(openai_server.SEEN).replace("0.93", "1e999")),
    "200 kB": openai_server.completed(openai_server.SEEN | {"middle_category": "유" * 70_000}),
}


async def play_bodies(rig: Rig, bodies: dict[str, tuple[Answer, str]]) -> None:
    """One job each, from the middle on; every other job completes."""
    jobs = dict(zip(range(rig.middle, rig.middle + len(bodies)), bodies.items(), strict=True))
    for job, (_, (answer, code)) in jobs.items():
        rig.expect(job, code)
        rig.model.misbehave(job, answer, "vision")
    for job, (name, _) in jobs.items():
        await rig.accepted(job)
        await eventually(partial(rig.has_ended, job), within=60)
        calls = len(rig.model.calls_of(job))
        rig.demand(calls <= 2, f"{name}: {calls} calls")


@fault("F22", "200 with something that is no answer: nine bodies")
async def f22(rig: Rig) -> None:
    """Each has its own code, after two calls at most."""
    await play_bodies(rig, NONSENSE)


@fault("F23", "valid JSON outside the taxonomy: four bodies")
async def f23(rig: Rig) -> None:
    """One more try, then model.bad_output; nothing off the taxonomy is stored."""
    await play_bodies(rig, {name: (answer, "model.bad_output") for name, answer in OFF_TAXONOMY.items()})


@fault("F24", "a model response of 300 MB")
async def f24(rig: Rig) -> None:
    """It is cut off: model.bad_output, and no worker grows by 50 MB."""
    job = rig.middle
    rig.expect(job, "model.bad_output")
    rig.model.misbehave(job, endless(b" " * 65_536), "vision")
    await rig.accepted(job)
    peak = 0
    while not await rig.has_ended(job):
        peak = max(peak, *(worker.footprint().kilobytes for worker in rig.workers))
    before = max(rig.baseline[worker.name].kilobytes for worker in rig.workers)
    rig.note(f"a worker grew by {max(peak - before, 0) / 1000:.0f} MB at most")
    rig.demand(peak - before < 50_000, f"a worker grew by {(peak - before) / 1000:.0f} MB")
