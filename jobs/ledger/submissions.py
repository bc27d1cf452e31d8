"""The ledger for the API: record a job, read it and its events, end it."""

import orjson

from jobs.errors import IdempotencyMismatch
from jobs.ledger.connection import LedgerConnection
from jobs.ledger.record import event_body, flat, job_of
from jobs.ledger.transitions import UNHELD, Transitions
from jobs.ledger.upkeep import RESEND_AFTER
from jobs.model import PROGRESS, Created, Job, JobError, JobEvent, JobStatus, NewJob
from jobs.redis import keys
from jobs.redis.connection import translated
from pipeline.types import Stage, StageStatus


class Submissions:
    """Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, connection: LedgerConnection) -> None:
        self._client = connection.client
        self._scripts = connection.scripts
        self._result_ttl = connection.settings.result_ttl
        self._create = connection.scripts.load("create")
        self._transitions = Transitions(connection)

    async def create(self, job: NewJob, *, idempotency_key: str | None = None, fingerprint: str = "") -> Created:
        """Record a job before it is sent. A repeat with the same key and fingerprint returns the first job.

        Raises IdempotencyMismatch when the key came with another fingerprint.
        """
        key = keys.job(job.job_id)
        with translated():
            reply = await self._create(
                job=key,
                events=keys.events(job.job_id),
                idempotency=keys.idempotency(idempotency_key) if idempotency_key else key,
                job_id=job.job_id,
                deadline=job.deadline,
                ttl=int(job.deadline) + self._result_ttl,
                fingerprint=fingerprint,
                send_in=RESEND_AFTER,
                body=event_body(job.job_id, Stage.QUEUED, StageStatus.COMPLETED, PROGRESS[Stage.QUEUED]),
                fields=flat(_fields_of(job)),
            )
        if reply[0] == b"mismatch":
            raise IdempotencyMismatch
        return Created(job_id=reply[0].decode(), is_new=bool(reply[1]), is_waiting=bool(reply[2]))

    async def get(self, job_id: str) -> Job | None:
        with translated():
            fields, rank = await self._scripts.run_all(("HGETALL", keys.job(job_id)), ("ZRANK", keys.QUEUED, job_id))
        return job_of(job_id, fields, rank) if fields else None

    async def is_gone(self, job_id: str) -> bool:
        """Whether there is no such job any more: its TTL has passed, or Redis has lost its data."""
        with translated():
            return not await self._scripts.run(("EXISTS", keys.job(job_id)))

    async def events(self, job_id: str, after: int = 0) -> list[JobEvent]:
        """The job's events numbered above `after`, in order."""
        with translated():
            bodies = await self._scripts.run(("LRANGE", keys.events(job_id), after, -1))
        return [JobEvent.parse(seq, body) for seq, body in enumerate(bodies, start=after + 1)]

    async def cancel(self, job_id: str) -> Job | None:
        """End the job now, even while a worker has it; that worker's later writes are rejected. Idempotent.

        Returns the job as it is afterwards: a job that had ended keeps its end. None for an unknown id.
        """
        job = await self.get(job_id)
        if job is None or job.status.is_final:
            return job
        error = JobError(code="job.cancelled", retryable=False, trace_id=job.trace_id)
        await self._transitions.end(job_id, UNHELD, JobStatus.CANCELLED, error=error)
        return await self.get(job_id)

    async def give_up(self, job_id: str) -> Job | None:
        """End the job now, as the sweep ends one past its deadline. In all else as `cancel`."""
        await self._transitions.expire(job_id)
        return await self.get(job_id)

    async def knows(self, idempotency_key: str) -> bool:
        """Whether a job was recorded under this key."""
        with translated():
            return bool(await self._client.exists(keys.idempotency(idempotency_key)))


def _fields_of(job: NewJob) -> dict[str, object]:
    fields: dict[str, object] = {
        "kind": job.kind,
        "priority": job.priority,
        "input": job.input.model_dump_json(),
        "metadata": orjson.dumps(job.metadata),
        "pipeline_version": job.pipeline_version,
        "trace_id": job.trace_id,
    }
    return fields | ({"callback": job.callback_url} if job.callback_url else {})
