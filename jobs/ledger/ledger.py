"""The ledger: what is true of each job. Each change of a job's state is one atomic script in `lua/`.

Nothing else writes these keys. A key carries a TTL or is one of PERMANENT_KEYS, which hold ids of live jobs only,
a bounded stream, and counters.
"""

from collections.abc import Sequence
from typing import Any, Self, cast
from uuid import uuid4

import orjson
from redis.asyncio import Redis

from jobs.ledger.record import (
    NO_CHARGES,
    Fields,
    charges,
    checkpoints_of,
    event_body,
    flat,
    job_of,
    priority_of,
    retries_of,
    steps_of,
)
from jobs.model import (
    PROGRESS,
    CacheEntry,
    CacheLookup,
    Claim,
    Created,
    Job,
    JobError,
    JobEvent,
    JobStatus,
    NewJob,
    Priority,
    WorkerBeat,
)
from jobs.redis.connection import LedgerUnavailable, connect, disconnect, translated
from jobs.redis.scripts import Scripts
from jobs.settings import JobsSettings
from pipeline.errors import CATALOGUE
from pipeline.types import (
    JobInput,
    PaidCall,
    PipelineResult,
    Stage,
    StageEvent,
    StageStatus,
)

QUEUED = "bunri:queued"  # job id → created at; for bulk jobs so much more that they stand behind all others
OUTBOX = "bunri:outbox"  # job id → when the sweep sends its message (again), unless a worker has claimed it by then
LEASES = "bunri:leases"  # job id → lease runs out at
DEADLINES = "bunri:deadlines"  # job id → deadline
FEED = "bunri:feed"  # stream of all events, trimmed
COUNTS = "bunri:counts"  # finished jobs by fate
DELIVERIES = "bunri:deliveries"  # job id → when its webhook is due, or when its attempt's lease runs out
DELIVERY_COUNTS = "bunri:delivery_counts"  # attempts to deliver a webhook by outcome
WORKERS = "bunri:workers"  # worker → last beat; members leave when their beat is old
PACE = "bunri:pace"  # how long jobs have lately held their worker
USAGE = "bunri:usage"  # what hosted models have cost in all; with a day's number behind it, on that day (`usage.py`)

PROBE = "bunri:probe"  # written to see whether anything can be; expires

PERMANENT_KEYS = frozenset(
    {QUEUED, OUTBOX, LEASES, DEADLINES, FEED, COUNTS, DELIVERIES, DELIVERY_COUNTS, WORKERS, PACE, USAGE}
)

RESEND_AFTER = 15.0
"""Seconds from the moment a message should be in the queue to the next one, if no worker has claimed the job.

Redis hands out a message and forgets it before the worker knows it (facts.md, Celery 1), so it may be lost even then.
"""

BATCH = 1000
"""Most jobs that one pass of the sweep looks at."""


class IdempotencyMismatch(Exception):
    """The idempotency key was used before, with another request."""


class StaleClaim(Exception):
    """The job was cancelled, taken over by another worker, or has ended: stop working on it."""


class Ledger:
    """One per process. Connects on first use; every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, client: Redis, settings: JobsSettings) -> None:
        self.client = client
        self._settings = settings
        self.scripts = scripts = Scripts(client, settings.redis_timeout)
        self._create, self._claim = scripts.load("create"), scripts.load("claim")
        self._record, self._finish = scripts.load("record"), scripts.load("finish")
        self._release, self._take_due = scripts.load("release"), scripts.load("take_due")
        self._reserve = scripts.load("reserve")

    @classmethod
    def connect(cls, settings: JobsSettings) -> Self:
        return cls(connect(settings), settings)

    @property
    def longest_block_ms(self) -> int:
        """For blocking reads on `client`, whose own timeout would end a longer one."""
        return int(min(1.0, self._settings.redis_timeout / 2) * 1000)

    async def close(self) -> None:
        await disconnect(self.client)

    async def ping(self) -> None:
        with translated():
            await self.client.ping()

    async def check(self) -> None:
        """Raises LedgerUnavailable, which says why, when Redis cannot keep jobs: away, full, read-only, forgetful."""
        with translated():
            await self.client.set(PROBE, 1, ex=60)
            memory = await self.client.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise LedgerUnavailable(f"Redis may forget jobs: its maxmemory-policy is {policy}, not noeviction")

    # --- the api's side ---

    async def create(self, job: NewJob, *, idempotency_key: str | None = None, fingerprint: str = "") -> Created:
        """Record a job before it is sent. A repeat with the same key and fingerprint returns the first job.

        Raises IdempotencyMismatch when the key came with another fingerprint.
        """
        key = _job_key(job.job_id)
        idempotency = f"bunri:idempotency:{idempotency_key}" if idempotency_key else key
        ttl = int(job.deadline) + self._settings.result_ttl
        fields = {
            "kind": job.kind,
            "priority": job.priority,
            "input": job.input.model_dump_json(),
            "metadata": orjson.dumps(job.metadata),
            "pipeline_version": job.pipeline_version,
            "trace_id": job.trace_id,
        } | ({"callback": job.callback_url} if job.callback_url else {})
        queued = event_body(job.job_id, Stage.QUEUED, StageStatus.COMPLETED, PROGRESS[Stage.QUEUED])
        with translated():
            reply = await self._create(
                keys=[key, _events_key(job.job_id), QUEUED, OUTBOX, DEADLINES, idempotency],
                args=[job.job_id, job.deadline, ttl, fingerprint, RESEND_AFTER, queued, *flat(fields), _job_key("")],
            )
        if reply[0] == b"mismatch":
            raise IdempotencyMismatch
        return Created(job_id=reply[0].decode(), is_new=bool(reply[1]), is_waiting=bool(reply[2]))

    async def get(self, job_id: str) -> Job | None:
        with translated():
            fields, rank = await self.scripts.run_all(("HGETALL", _job_key(job_id)), ("ZRANK", QUEUED, job_id))
        return job_of(job_id, fields, rank) if fields else None

    async def is_gone(self, job_id: str) -> bool:
        """Whether there is no such job any more: its time is over, or Redis has lost its data."""
        with translated():
            return not await self.scripts.run(("EXISTS", _job_key(job_id)))

    async def events(self, job_id: str, after: int = 0) -> list[JobEvent]:
        """The job's events numbered above `after`, in order."""
        with translated():
            bodies = await self.scripts.run(("LRANGE", _events_key(job_id), after, -1))
        return [JobEvent.parse(after + place, body) for place, body in enumerate(bodies, start=1)]

    async def cancel(self, job_id: str) -> Job | None:
        """End the job now, whoever works on it; its worker's later writes are refused. Idempotent.

        Returns the job as it is afterwards: a job that had ended keeps its end. None for an unknown id.
        """
        job = await self.get(job_id)
        if job is None or job.status.is_final:
            return job
        error = JobError(code="job.cancelled", retryable=False, trace_id=job.trace_id)
        await self._end(job_id, "", JobStatus.CANCELLED, error=error)
        return await self.get(job_id)

    async def give_up(self, job_id: str) -> Job | None:
        """End the job now, as the sweep ends one past its deadline. In all else as `cancel`."""
        await self._expire_one(job_id)
        return await self.get(job_id)

    async def knows(self, idempotency_key: str) -> bool:
        """Whether a job was recorded under this key."""
        with translated():
            return bool(await self.client.exists(f"bunri:idempotency:{idempotency_key}"))

    async def depth(self) -> int:
        """Jobs that wait in the queue."""
        with translated():
            return int(await self.client.zcard(QUEUED))

    async def running(self) -> int:
        with translated():
            return int(await self.client.zcard(LEASES))

    async def counts(self) -> dict[str, int]:
        """Jobs ended since the ledger began, by `completed`, `cancelled` or `failed:<code>`."""
        with translated():
            counts = await cast("Any", self.client.hgetall(COUNTS))
        return {fate.decode(): int(count) for fate, count in counts.items()}

    async def workers(self, *, within: float = 15.0) -> list[WorkerBeat]:
        """Workers that said so within the last seconds."""
        with translated():
            seconds, _ = await self.client.time()
        beats = await self._by_score(WORKERS, seconds - within, "+inf")
        return [WorkerBeat.model_validate_json(beat) for beat in beats]

    # --- the worker's side ---

    async def beat(self, beat: WorkerBeat, *, instead_of: WorkerBeat | None = None, forget_after: float = 60.0) -> None:
        """`instead_of` is what this worker said of itself until now: it is not to be counted as another worker."""
        with translated():
            seconds, _ = await self.client.time()
            async with self.client.pipeline(transaction=True) as pipe:
                if instead_of is not None and instead_of != beat:
                    pipe.zrem(WORKERS, instead_of.model_dump_json())
                pipe.zadd(WORKERS, {beat.model_dump_json(): seconds})
                pipe.zremrangebyscore(WORKERS, "-inf", seconds - forget_after)
                await pipe.execute()

    async def depart(self, beat: WorkerBeat) -> None:
        """A worker says goodbye, so that readiness need not wait for its beat to grow old."""
        with translated():
            await self.client.zrem(WORKERS, beat.model_dump_json())

    async def claim(self, job_id: str, claimant: str | None = None, *, version: str = "") -> Claim | None:
        """Take the job under a lease. None when there is nothing to do: it is unknown, ended, or held by another.

        `claimant` is a name for this one claim, under which it can be asked for again when the answer was lost;
        `version` the pipeline that is to run the job, which from now on is the job's.
        """
        with translated():
            reply = await self._claim(
                keys=[_job_key(job_id), QUEUED, LEASES, OUTBOX],
                args=[job_id, self._settings.lease, claimant or uuid4().hex, version],
            )
        if not reply:
            return None
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        return Claim(
            job_id=job_id,
            token=int(fields[b"token"]),
            input=JobInput.model_validate_json(fields[b"input"]),
            checkpoints=checkpoints_of(fields),
            attempts=int(fields[b"attempts"]),
            retries=retries_of(fields),
            time_left=float(fields[b"deadline_at"]) - float(fields[b"lease_until"]) + self._settings.lease,
            trace_id=fields[b"trace_id"].decode(),
        )

    async def now(self) -> float:
        """Unix seconds by the clock that leases and deadlines are measured with."""
        with translated():
            seconds, micros = await self.client.time()
        return float(seconds) + float(micros) / 1e6

    async def record(self, claim: Claim, *events: StageEvent, write: int = 0, spent: PaidCall | None = None) -> None:
        """Write finished stages with their checkpoints, and renew the lease. Raises StaleClaim.

        `write` numbers the writes of a claim from 1, so that one whose answer was lost can be sent again. `spent` is a
        model call that came to nothing, here and below; its cost counts even when the claim is stale.
        """
        fields, bodies = steps_of(claim.job_id, events)
        with translated():
            held = await self._record(
                keys=[_job_key(claim.job_id), _events_key(claim.job_id), FEED, LEASES],
                args=[
                    *(claim.job_id, claim.token, self._settings.lease, write),
                    *(*charges(claim, events, spent), *flat(fields), *bodies),
                ],
            )
        if not held:
            raise StaleClaim

    async def renew(self, claim: Claim) -> None:
        """Keep the lease. Raises StaleClaim, which is how a worker hears of a cancel."""
        await self.record(claim)

    async def complete(
        self, claim: Claim, result: PipelineResult, *steps: StageEvent, shared: CacheEntry | None = None
    ) -> None:
        """End the job with its result and the last steps, and keep the result for other jobs if it is to be shared.

        Raises StaleClaim: then the result is dropped, because the job has another end or another worker. The job's
        model and usage are those of its checkpoints, which a failed job shows, too.
        """
        fields, bodies = steps_of(claim.job_id, steps)
        fields |= {
            "result": result.model_dump_json(),
            "degraded": int(result.degraded),
            "cached": int(result.cached),
        }
        await self._end(
            *(claim.job_id, claim.token, JobStatus.COMPLETED),
            fields=fields,
            bodies=bodies,
            shared=shared,
            charged=charges(claim, steps),
        )

    async def fail(
        self, claim: Claim, error: JobError, stage: Stage | None = None, *, spent: PaidCall | None = None
    ) -> None:
        """End the job as failed; `stage` is the one that failed. Raises StaleClaim."""
        await self._end(
            claim.job_id,
            claim.token,
            JobStatus.FAILED,
            error=error,
            failed_stage=stage,
            charged=charges(claim, spent=spent),
        )

    async def release(self, claim: Claim) -> bool:
        """Let go of the job unfinished; its message goes back to the queue. False when it was not ours any more."""
        return await self._put_back(claim.job_id, claim.token, send_in=RESEND_AFTER) is not None

    async def retry(self, claim: Claim, code: str, *, delay: float, spent: PaidCall | None = None) -> None:
        """Put the job back after the error `code`, to be sent again after `delay` seconds. Raises StaleClaim."""
        put_back = await self._put_back(
            claim.job_id,
            claim.token,
            delay=delay,
            send_in=delay,
            counter=f"retries:{code}",
            charged=charges(claim, spent=spent),
        )
        if put_back is None:
            raise StaleClaim

    async def park(self, claim: Claim, *, delay: float) -> None:
        """Put the job back untried, to be sent again after `delay` seconds; this attempt is not counted.

        Raises StaleClaim.
        """
        fields: Fields = {"attempts": claim.attempts - 1}
        put_back = await self._put_back(claim.job_id, claim.token, delay=delay, send_in=delay, fields=fields)
        if put_back is None:
            raise StaleClaim

    async def reserve(self, fingerprint: str, job_id: str) -> CacheLookup:
        """Ask for the result with this fingerprint: it is there, another job is at it, or this job may make it."""
        with translated():
            state, *value = await self._reserve(
                keys=[_result_key(fingerprint), _job_key("")], args=[job_id, int(self._settings.max_deadline)]
            )
        made = PipelineResult.model_validate_json(value[0]) if state == b"made" else None
        return CacheLookup(result=made, holder=value[0].decode() if state == b"held" else None)

    # --- the sweep's side ---

    async def rescue_stalled(self) -> list[str]:
        """Put back the jobs whose lease ran out; end those that took down too many workers. Returns their ids."""
        lapsed = await self._by_score(LEASES, "-inf", await self.now())
        return [job_id for job_id in lapsed if await self._reclaim_one(job_id)]

    async def take_due(self) -> list[tuple[str, Priority]]:
        """The jobs whose message must be sent now, each handed to one caller."""
        with translated():
            due = await self._take_due(keys=[OUTBOX], args=[BATCH, RESEND_AFTER, _job_key("")])
        return [(job_id.decode(), priority_of(priority)) for job_id, priority in due]

    async def send_soon(self, job_ids: list[str]) -> None:
        """Make these due again at once, unless they have been claimed meanwhile."""
        if job_ids:
            with translated():
                await self.client.zadd(OUTBOX, dict.fromkeys(job_ids, await self.now()), xx=True)

    async def expire(self) -> list[str]:
        """End each job that is past its deadline. Returns the ids of those ended."""
        late = await self._by_score(DEADLINES, "-inf", await self.now())
        return [job_id for job_id in late if await self._expire_one(job_id)]

    async def _by_score(self, key: str, low: float | str, high: float | str) -> list[str]:
        with translated():
            members = await self.client.zrangebyscore(key, low, high, start=0, num=BATCH)
        return [member.decode() for member in cast("list[bytes]", members)]

    async def _expire_one(self, job_id: str) -> bool:
        with translated():
            trace_id, stage = await cast("Any", self.client.hmget(_job_key(job_id), "trace_id", "stage"))
            if trace_id is None:  # Its record's TTL ran out first; forget what still lists it.
                for key in (QUEUED, OUTBOX, LEASES, DEADLINES):
                    await self.client.zrem(key, job_id)
                return False
        return await self._fail_unheld(job_id, "job.deadline_exceeded", trace_id, stage)

    async def _reclaim_one(self, job_id: str) -> bool:
        crashes = await self._put_back(job_id, "", counter="crashes")
        if crashes is None:
            return False
        if crashes >= self._settings.max_attempts:
            with translated():
                trace_id, stage = await cast("Any", self.client.hmget(_job_key(job_id), "trace_id", "stage"))
            await self._fail_unheld(job_id, "job.worker_lost", trace_id or b"", stage)
        return True

    async def _fail_unheld(self, job_id: str, code: str, trace_id: bytes, stage: bytes | None) -> bool:
        """End a job whoever holds it. Reads no more of the record than it must: another version may have written it."""
        error = JobError(code=code, retryable=CATALOGUE[code].retryable, trace_id=trace_id.decode(errors="replace"))
        reached = next((each for each in Stage if each.encode() == stage), None)
        return await self._end(job_id, "", JobStatus.FAILED, error=error, failed_stage=reached)

    async def _put_back(
        self,
        job_id: str,
        token: int | str,
        *,
        delay: float = 0,
        send_in: float = 0,
        counter: str = "",
        fields: Fields | None = None,
        charged: Sequence[Any] = NO_CHARGES,
    ) -> int | None:
        """The counter's new value, or None when the job was not ours to put back."""
        with translated():
            reply: int | None = await self._release(
                keys=[_job_key(job_id), QUEUED, LEASES, OUTBOX],
                args=[job_id, token, delay, send_in, counter, *charged, *flat(fields or {})],
            )
        return reply

    async def _end(
        self,
        job_id: str,
        token: int | str,
        status: JobStatus,
        *,
        fields: Fields | None = None,
        bodies: list[bytes] | None = None,
        error: JobError | None = None,
        failed_stage: Stage | None = None,
        shared: CacheEntry | None = None,
        charged: Sequence[Any] = NO_CHARGES,
    ) -> bool:
        """End the job in one write; False if it had ended. An empty token ends it whoever holds it, else StaleClaim."""
        fate = f"{status}:{error.code}" if error and status is JobStatus.FAILED else str(status)
        fields = (fields or {}) | ({"error": error.model_dump_json()} if error else {})
        bodies = list(bodies or ())
        if failed_stage in PROGRESS and failed_stage not in (Stage.QUEUED, Stage.DONE, None):
            bodies.append(event_body(job_id, failed_stage, StageStatus.FAILED, PROGRESS[failed_stage]))
        if status is JobStatus.COMPLETED:
            bodies.append(event_body(job_id, Stage.REWARD, StageStatus.SKIPPED, PROGRESS[Stage.REWARD]))
        extra = {"outcome": str(status)} | ({"error": error.model_dump()} if error else {})
        bodies.append(event_body(job_id, Stage.DONE, StageStatus.COMPLETED, PROGRESS[Stage.DONE], extra))
        listing = (QUEUED, OUTBOX, LEASES, DEADLINES)
        with translated():
            done = await self._finish(
                keys=[
                    *(_job_key(job_id), _events_key(job_id), FEED, COUNTS, DELIVERIES),
                    *(_result_key(shared.fingerprint if shared else ""), *listing),
                ],
                args=[
                    *(job_id, token, status, self._settings.result_ttl, fate, shared.ttl if shared else 0),
                    *(*charged, *flat(fields), *bodies),
                ],
            )
        if not done and token != "":
            raise StaleClaim
        return bool(done)


def _job_key(job_id: str) -> str:
    return f"bunri:job:{job_id}"


def _result_key(fingerprint: str) -> str:
    return f"bunri:result:{fingerprint}"


def _events_key(job_id: str) -> str:
    return f"bunri:job:{job_id}:events"
