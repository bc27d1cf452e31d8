"""The two changes of state that several audiences make: ending a job, and putting it back in the queue."""

from collections.abc import Sequence
from typing import Any, cast

from jobs.errors import StaleClaim
from jobs.ledger.connection import LedgerConnection
from jobs.ledger.record import Fields, event_body, flat
from jobs.model import PROGRESS, CacheEntry, JobError, JobStatus
from jobs.redis import keys
from jobs.redis.connection import translated
from pipeline.errors import CATALOGUE
from pipeline.types import Stage, StageStatus

LISTINGS = (keys.QUEUED, keys.OUTBOX, keys.LEASES, keys.DEADLINES)
"""Sorted sets that list a live job."""

UNHELD = ""
"""In place of a token: the write does not ask who holds the job."""


class Transitions:
    def __init__(self, connection: LedgerConnection) -> None:
        self._client = connection.client
        self._result_ttl = connection.settings.result_ttl
        self._finish, self._release = connection.scripts.load("finish"), connection.scripts.load("release")

    async def put_back(
        self,
        job_id: str,
        token: int | str,
        *,
        delay: float = 0,
        send_in: float = 0,
        counter: str = "",
        fields: Fields | None = None,
        charged: Sequence[Any] = (),
    ) -> int | None:
        """The counter's new value, or None when the job was not ours to put back.

        UNHELD puts back only a job whose lease ran out.
        """
        with translated():
            reply: int | None = await self._release(
                job=keys.job(job_id),
                job_id=job_id,
                token=token,
                delay=delay,
                send_in=send_in,
                counter=counter,
                charges=charged,
                fields=flat(fields or {}),
            )
        return reply

    async def end(
        self,
        job_id: str,
        token: int | str,
        status: JobStatus,
        *,
        fields: Fields | None = None,
        bodies: Sequence[bytes] = (),
        error: JobError | None = None,
        failed_stage: Stage | None = None,
        shared: CacheEntry | None = None,
        charged: Sequence[Any] = (),
    ) -> bool:
        """End the job in one write; False if it had ended. UNHELD ends it regardless of its holder, else StaleClaim."""
        fields = (fields or {}) | ({"error": error.model_dump_json()} if error else {})
        with translated():
            done = await self._finish(
                job=keys.job(job_id),
                events=keys.events(job_id),
                result=keys.result(shared.fingerprint if shared else ""),
                job_id=job_id,
                token=token,
                status=status,
                ttl=self._result_ttl,
                fate=f"{status}:{error.code}" if error and status is JobStatus.FAILED else str(status),
                share_for=shared.ttl if shared else 0,
                charges=charged,
                fields=flat(fields),
                bodies=[*bodies, *_last_events(job_id, status, error, failed_stage)],
            )
        if not done and token != UNHELD:
            raise StaleClaim
        return bool(done)

    async def expire(self, job_id: str) -> bool:
        """End the job because its deadline has passed; False if it had ended."""
        with translated():
            trace_id, stage = await self._trace_and_stage(job_id)
            if trace_id is None:  # Its record's TTL ran out first; forget what still lists it.
                for listing in LISTINGS:
                    await self._client.zrem(listing, job_id)
                return False
        return await self._fail_unheld(job_id, "job.deadline_exceeded", trace_id, stage)

    async def fail_lost(self, job_id: str) -> None:
        """End the job because it took down too many workers."""
        with translated():
            trace_id, stage = await self._trace_and_stage(job_id)
        await self._fail_unheld(job_id, "job.worker_lost", trace_id or b"", stage)

    async def _trace_and_stage(self, job_id: str) -> tuple[bytes | None, bytes | None]:
        """Reads no more of the record than it must: another version may have written it."""
        trace_id, stage = await cast("Any", self._client.hmget(keys.job(job_id), "trace_id", "stage"))
        return trace_id, stage

    async def _fail_unheld(self, job_id: str, code: str, trace_id: bytes, stage: bytes | None) -> bool:
        error = JobError(code=code, retryable=CATALOGUE[code].retryable, trace_id=trace_id.decode(errors="replace"))
        reached = next((each for each in Stage if each.encode() == stage), None)
        return await self.end(job_id, UNHELD, JobStatus.FAILED, error=error, failed_stage=reached)


def _last_events(job_id: str, status: JobStatus, error: JobError | None, failed_stage: Stage | None) -> list[bytes]:
    bodies = []
    if failed_stage in PROGRESS and failed_stage not in (Stage.QUEUED, Stage.DONE, None):
        bodies.append(event_body(job_id, failed_stage, StageStatus.FAILED, PROGRESS[failed_stage]))
    if status is JobStatus.COMPLETED:
        bodies.append(event_body(job_id, Stage.REWARD, StageStatus.SKIPPED, PROGRESS[Stage.REWARD]))
    extra = {"outcome": str(status)} | ({"error": error.model_dump()} if error else {})
    return [*bodies, event_body(job_id, Stage.DONE, StageStatus.COMPLETED, PROGRESS[Stage.DONE], extra)]
