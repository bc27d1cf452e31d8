"""The ledger for workers: claim a job, record its progress, end it or put it back."""

from uuid import uuid4

from jobs.errors import StaleClaim
from jobs.ledger.connection import LedgerConnection
from jobs.ledger.record import Fields, charges, checkpoints_of, flat, retries_of, steps_of
from jobs.ledger.transitions import Transitions
from jobs.ledger.upkeep import RESEND_AFTER
from jobs.model import CacheEntry, CacheLookup, Claim, JobError, JobStatus
from jobs.redis import keys
from jobs.redis.connection import translated
from pipeline.types import JobInput, PaidCall, PipelineResult, Stage, StageEvent


class Claims:
    """Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, connection: LedgerConnection) -> None:
        self._settings = connection.settings
        self._claim, self._record = connection.scripts.load("claim"), connection.scripts.load("record")
        self._reserve = connection.scripts.load("reserve")
        self._transitions = Transitions(connection)

    async def claim(self, job_id: str, claimant: str | None = None, *, version: str = "") -> Claim | None:
        """Take the job under a lease. None when there is nothing to do: it is unknown, ended, or held by another.

        `claimant` names this one claim, so that it can be asked for again when the answer was lost; `version` is the
        pipeline that is to run the job, and from now on the job's.
        """
        lease = self._settings.lease
        with translated():
            reply = await self._claim(
                job=keys.job(job_id), job_id=job_id, lease=lease, claimant=claimant or uuid4().hex, version=version
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
            time_left=float(fields[b"deadline_at"]) - float(fields[b"lease_until"]) + lease,
            trace_id=fields[b"trace_id"].decode(),
        )

    async def record(self, claim: Claim, *events: StageEvent, write: int = 0, spent: PaidCall | None = None) -> None:
        """Write finished stages with their checkpoints, and renew the lease. Raises StaleClaim.

        `write` numbers the writes of a claim from 1, so that one whose answer was lost can be sent again. `spent`, here
        and below, is a model call without a usable result; its cost counts even when the claim is stale.
        """
        fields, bodies = steps_of(claim.job_id, events)
        with translated():
            held = await self._record(
                job=keys.job(claim.job_id),
                events=keys.events(claim.job_id),
                job_id=claim.job_id,
                token=claim.token,
                lease=self._settings.lease,
                write=write,
                charges=charges(claim, events, spent),
                fields=flat(fields),
                bodies=bodies,
            )
        if not held:
            raise StaleClaim

    async def renew(self, claim: Claim) -> None:
        """Keep the lease. Raises StaleClaim, which is how a worker learns of a cancel."""
        await self.record(claim)

    async def complete(
        self, claim: Claim, result: PipelineResult, *steps: StageEvent, shared: CacheEntry | None = None
    ) -> None:
        """End the job with its result and the last steps; with `shared`, cache the result for other jobs.

        Raises StaleClaim: then the result is dropped, because the job has another end or another worker. The job's
        model and usage are those of its checkpoints, which a failed job shows, too.
        """
        fields, bodies = steps_of(claim.job_id, steps)
        fields |= {
            "result": result.model_dump_json(),
            "degraded": int(result.degraded),
            "cached": int(result.cached),
        }
        await self._transitions.end(
            claim.job_id,
            claim.token,
            JobStatus.COMPLETED,
            fields=fields,
            bodies=bodies,
            shared=shared,
            charged=charges(claim, steps),
        )

    async def fail(
        self, claim: Claim, error: JobError, stage: Stage | None = None, *, spent: PaidCall | None = None
    ) -> None:
        """End the job as failed; `stage` is the one that failed. Raises StaleClaim."""
        await self._transitions.end(
            claim.job_id,
            claim.token,
            JobStatus.FAILED,
            error=error,
            failed_stage=stage,
            charged=charges(claim, spent=spent),
        )

    async def release(self, claim: Claim) -> bool:
        """Let go of the job unfinished; its message goes back to the queue. False when it was not ours any more."""
        return await self._transitions.put_back(claim.job_id, claim.token, send_in=RESEND_AFTER) is not None

    async def retry(self, claim: Claim, code: str, *, delay: float, spent: PaidCall | None = None) -> None:
        """Put the job back after the error `code`, to be sent again after `delay` seconds. Raises StaleClaim."""
        put_back = await self._transitions.put_back(
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
        put_back = await self._transitions.put_back(
            claim.job_id, claim.token, delay=delay, send_in=delay, fields=fields
        )
        if put_back is None:
            raise StaleClaim

    async def reserve(self, fingerprint: str, job_id: str) -> CacheLookup:
        """Look the fingerprint up in the result cache: the result, or the job that makes it, or it is this job's."""
        with translated():
            state, *value = await self._reserve(
                result=keys.result(fingerprint), job_id=job_id, reserve_for=int(self._settings.max_deadline)
            )
        made = PipelineResult.model_validate_json(value[0]) if state == b"made" else None
        return CacheLookup(result=made, holder=value[0].decode() if state == b"held" else None)
