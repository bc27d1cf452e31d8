"""The invariants I1 to I9 as data: each is a function from what was observed to what breaks it.

They are checked after every fault, when all clients know how their jobs ended. docs/reliability.md says what they mean.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobs.redis.keys import DEADLINES, JOB_PREFIX, LEASES, OUTBOX, PERMANENT_KEYS, QUEUED
from tests.chaos.clients import FINAL, Mode, Submit, Watched
from tests.chaos.processes import Footprint, descendants, is_zombie
from tests.chaos.rig import DEADLINE, MARGIN, SECRETS, Disruption, Rig, redis_client
from tests.chaos.upstreams import Call, Outcome, mark
from tests.support.wait import eventually

BROKER_KEYS = ("_kombu.", "bunri.jobs")
"""What kombu keeps; it sets no TTL. Not `unacked`: acknowledgements are not emulated (decision 0010)."""

SETTLE_SECONDS = 45.0
"""For messages that were sent twice to be taken and dropped."""

HEALTH_P99 = 0.2
SUBMIT_P99 = 1.0
REFUSAL_LIMIT = 3.0
JUST_AFTER = 1.0
"""Between a result's last byte and its checkpoint, at most; a kill in between costs the call again."""

AOF_SECONDS = 1.5
"""What an append-only file that is synced every second may lack after a kill."""

GROWTH = 1.1
SLACK = Footprint(files=110, threads=8, kilobytes=40_000)
"""Above a tenth: two pooled connections for each of a worker's 50 slots, and threads that the warm-up did not need."""


@dataclass(frozen=True)
class Observed:
    """The rig after the run, and what Redis held once everything had settled."""

    rig: Rig
    keys: dict[str, int]
    """Key → TTL in seconds, -1 for none."""
    lengths: dict[str, int]
    job_ids: set[str]
    footprints: dict[str, Footprint]
    zombies: list[int]

    @property
    def accepted(self) -> list[Watched]:
        return [job for job in self.rig.watched if job.is_accepted]


async def observe(rig: Rig) -> Observed:
    """Wait for Redis to settle, then look at it, at the processes, and at every job once more."""
    client = redis_client(rig)
    lengths: dict[str, int] = {}

    async def is_settled() -> bool:
        lengths.clear()
        lengths.update(await _lengths(client))
        return not any(lengths.values())

    with suppress(AssertionError):  # I7 says what is left.
        await eventually(is_settled, within=SETTLE_SECONDS, every=0.2)
    await rig.look_back()
    keys = {key.decode(): await client.ttl(key) for key in [key async for key in client.scan_iter(count=1000)]}
    await client.aclose()
    jobs = {name.removeprefix(JOB_PREFIX) for name in keys if name.startswith(JOB_PREFIX) and name.count(":") == 2}
    live = {name: process for name, process in rig.processes.items() if process.is_alive}
    return Observed(
        rig,
        keys,
        lengths,
        jobs,
        {name: process.footprint() for name, process in live.items()},
        [child for process in live.values() for child in descendants(process.pid) if is_zombie(child)],
    )


async def _lengths(client: Any) -> dict[str, int]:
    """Of all that must be empty when no job is left: queues and the ledger's lists."""
    found = {key: await client.zcard(key) for key in (QUEUED, OUTBOX, LEASES, DEADLINES)}
    async for key in client.scan_iter(count=1000, _type="list"):
        if not key.startswith(JOB_PREFIX.encode()):
            found[key.decode()] = await client.llen(key)
    return found


# --- the invariants ---


def every_job_ends(seen: Observed) -> Iterator[str]:
    for job in seen.accepted:
        if job.gone and job.gone in seen.rig.allowed(job.number):
            if job.ended_at is None and job.mode is not Mode.WEBHOOK:
                yield f"job {job.number} is {job.gone}, and its client ({job.mode}) never knew"
            continue
        if job.status not in FINAL:
            yield f"job {job.number} is {job.gone or job.status or 'unknown'}"
        elif job.job["finished_at"] - job.job["created_at"] > DEADLINE + MARGIN:
            yield f"job {job.number} ended late"
        elif job.ended_at is None and job.mode is not Mode.WEBHOOK:
            yield f"job {job.number} ended as {job.code}, and its client ({job.mode}) never knew"


def an_end_is_final(seen: Observed) -> Iterator[str]:
    for job in seen.accepted:
        dones = [event for event in job.replay if event.name == "done"]
        if job.status in FINAL and len(dones) != 1:
            yield f"job {job.number} has {len(dones)} final events"
        if len({told.status for told in job.told.values()}) > 1:
            yield f"job {job.number} ended as {sorted({told.status for told in job.told.values()})}"


def no_call_is_paid_twice(seen: Observed) -> Iterator[str]:
    calls: dict[tuple[int, str], list[Call]] = defaultdict(list)
    for call in seen.rig.model.calls:
        calls[call.job, call.purpose].append(call)
    for (number, purpose), own in calls.items():
        good = [call for call in own if call.outcome is Outcome.GOOD]
        if len(good) > 1 and not all(_is_excused(call, seen.rig.disruptions) for call in good[:-1]):
            yield f"job {number} paid {len(good)} times for {purpose}"


def _is_excused(call: Call, disruptions: list[Disruption]) -> bool:
    """Whether what the call brought was lost: on its way, with who had asked, or with the last writes of Redis."""
    ended = call.ended or 0.0
    for each in disruptions:
        if each.what.startswith(("kill worker", "stop worker")) and (
            each.began - JUST_AFTER <= ended <= each.ended + JUST_AFTER
        ):
            return True
        if each.what == "silent model" and each.began - JUST_AFTER <= ended <= each.ended:
            return True
        if each.what == "kill redis" and each.began - AOF_SECONDS <= ended <= each.began:
            return True
        if each.what == "lose redis" and ended <= each.ended:
            return True
    return False


def all_sources_agree(seen: Observed) -> Iterator[str]:
    for job in seen.accepted:
        if len(set(job.told.values())) > 1:
            yield f"job {job.number} is told differently by {', '.join(job.told)}"
        if job.code == "completed" and not job.job["degraded"] and mark(job.number) not in str(job.job["result"]):
            yield f"job {job.number} has another job's answer"
        missing, repeated = stream_faults(job)
        if missing or repeated:
            yield f"job {job.number}: {missing} events missing, {repeated} repeated"


def stream_faults(job: Watched) -> tuple[int, int]:
    """How many events the client missed, and how many came twice, out of order or changed."""
    if job.mode is not Mode.STREAM or job.ended_at is None:
        return 0, 0
    numbers = Counter(event.seq for event in job.events)
    missing = sum(number not in numbers for number in range(1, job.events[-1].seq + 1))
    out_of_order = sum(one.seq >= other.seq for one, other in zip(job.events, job.events[1:], strict=False))
    changed = sum(event not in job.replay for event in job.events) if job.replay else 0
    return missing, max(out_of_order, changed)


def no_ghosts(seen: Observed) -> Iterator[str]:
    for job in seen.rig.watched:
        if len(job.job_ids) > 1:
            yield f"one key gave job {job.number} {len(job.job_ids)} ids"
    known = {job_id for job in seen.rig.watched for job_id in job.job_ids}
    if ghosts := seen.job_ids - known - seen.rig.other_ids:
        yield f"{len(ghosts)} jobs that nobody was told of"


def errors_are_typed(seen: Observed) -> Iterator[str]:
    for job in seen.accepted:
        wanted = seen.rig.allowed(job.number)
        if job.status in FINAL and job.code not in wanted:
            yield f"job {job.number} ended as {job.code}, not {' or '.join(sorted(wanted))}"
    for job in seen.rig.watched:
        for each in job.submits:
            if each.status >= 400 and not each.code:
                yield f"submit of job {job.number}: {each.status} without a code"
            if each.status in {429, 503} and not each.has_retry_after:
                yield f"submit of job {job.number}: {each.status} without Retry-After"


def nothing_is_left(seen: Observed) -> Iterator[str]:
    for name, length in seen.lengths.items():
        if length:
            yield f"{name} holds {length}"
    for key, ttl in seen.keys.items():
        if ttl == -1 and key not in PERMANENT_KEYS and not key.startswith(BROKER_KEYS):
            yield f"{key} has no TTL"
    yield from _growth(seen)
    if seen.zombies:
        yield f"{len(seen.zombies)} zombies"
    if left := [path.name for path in (seen.rig.folder / "tmp").iterdir()]:
        yield f"TMPDIR holds {left[:3]}"


def _growth(seen: Observed) -> Iterator[str]:
    """Of processes that were seen warm and idle before the stream."""
    for name, baseline in seen.rig.baseline.items():
        now = seen.footprints.get(name, Footprint(0, 0, 0))
        for what in ("files", "threads", "kilobytes"):
            before, after = getattr(baseline, what), getattr(now, what)
            if after > before * GROWTH + getattr(SLACK, what):
                yield f"{name}: {what} grew from {before} to {after}"


def the_api_stays_quick(seen: Observed) -> Iterator[str]:
    up = [probe for probe in seen.rig.probes if not _is_api_away(probe.at, seen.rig)]
    if silent := [probe for probe in up if probe.seconds is None]:
        yield f"/healthz did not answer {len(silent)} times"
    times = [probe.seconds for probe in up if probe.seconds is not None]
    if (health := p99(times)) > HEALTH_P99:
        yield f"/healthz p99 {health * 1000:.0f} ms"
    submits = [each for job in seen.rig.watched for each in job.submits if not _is_api_away(each.at, seen.rig)]
    smooth = [each.seconds for each in submits if each.status == 202 and not _is_redis_away(each, seen.rig)]
    if (taken := p99(smooth)) > SUBMIT_P99:
        yield f"submit p99 {taken:.2f} s"
    if slow := [each.seconds for each in submits if each.seconds > REFUSAL_LIMIT]:
        yield f"{len(slow)} submits were answered after {max(slow):.2f} s at most"


def _is_redis_away(submit: Submit, rig: Rig) -> bool:
    """Then a submit may take as long as a refusal, and be taken in the end."""
    return any(
        "redis" in each.what and submit.at <= each.ended + 1 and each.began <= submit.at + 3 for each in rig.disruptions
    )


def _is_api_away(at: float, rig: Rig) -> bool:
    return any(each.what == "no api" and each.began - 0.5 <= at <= each.ended for each in rig.disruptions)


def logs_tell_and_keep_secrets(seen: Observed) -> Iterator[str]:
    for path in (seen.rig.folder / "logs").iterdir():
        text = path.read_text("utf-8", "replace")
        yield from (f"{path.name} holds a secret: {name}" for name, secret in SECRETS.items() if secret in text)
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for process in seen.rig.processes.values():
        for entry in process.events(
            "job.submitted", "job.claimed", "job.completed", "job.failed", "job.deadline_passed"
        ):
            told[str(entry.get("job_id"))][entry["event"]] += 1
    for job in seen.accepted:
        if job.status not in FINAL or _is_hit(job, seen.rig):
            continue
        lines = told[job.job_id]
        ends = lines["job.completed"] + lines["job.failed"] + lines["job.deadline_passed"]
        if not lines["job.submitted"] or (job.job["attempts"] and not lines["job.claimed"]) or ends != 1:
            yield f"job {job.number} has {dict(lines)} in the logs"


def _is_hit(job: Watched, rig: Rig) -> bool:
    """Whether a process was killed about the moment that the job was taken or ended: its line may be lost."""
    moments = [job.accepted_at, job.job["finished_at"]]
    kills = [at for process in rig.processes.values() for at in process.killed_at]
    return any(abs(kill - moment) < JUST_AFTER for kill in kills for moment in moments) or _was_reclaimed(job, rig)


def _was_reclaimed(job: Watched, rig: Rig) -> bool:
    """`job.worker_lost` is the sweep's verdict, told as `job.reclaimed`."""
    return job.code == "job.worker_lost" and any(
        entry["job_id"] == job.job_id for worker in rig.workers for entry in worker.events("job.reclaimed")
    )


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0


INVARIANTS: dict[str, Callable[[Observed], Iterator[str]]] = {
    "I1": every_job_ends,
    "I2": an_end_is_final,
    "I3": no_call_is_paid_twice,
    "I4": all_sources_agree,
    "I5": no_ghosts,
    "I6": errors_are_typed,
    "I7": nothing_is_left,
    "I8": the_api_stays_quick,
    "I9": logs_tell_and_keep_secrets,
}


def judge(seen: Observed) -> dict[str, list[str]]:
    """Invariant → what breaks it, of those that are broken. `bar` and `time` are the fault's own bars."""
    found = {name: list(invariant(seen)) for name, invariant in INVARIANTS.items()}
    found |= {"bar": seen.rig.breaches, "time": seen.rig.late}
    return {name: broken for name, broken in found.items() if broken}


def lost(seen: Observed) -> list[Watched]:
    """Accepted, and neither ended nor known to be gone because the fault says so."""
    return [job for job in seen.accepted if job.status not in FINAL and job.gone not in seen.rig.allowed(job.number)]


def extra_calls(seen: Observed) -> int:
    """Model calls beyond one a stage, each job by itself."""
    asked = Counter((call.job, call.purpose) for call in seen.rig.model.calls)
    return sum(count - 1 for count in asked.values())
