"""One job in a worker: claim → pipeline.run → finish. The only `except PipelineError` in workers."""

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import structlog
from celery.exceptions import Reject

from pipeline.errors import Internal, JobDeadlineExceeded, PipelineError
from pipeline.run import Pipeline
from pipeline.types import PipelineResult, Stage, StageEvent, Usage
from workers import retry
from workers.insist import insist
from workers.jobs.connection import LedgerUnavailable
from workers.jobs.ledger import Ledger, StaleClaim
from workers.jobs.model import Claim, JobError
from workers.leases import Leases
from workers.reuse import JobReuse

CLAIM_PATIENCE = 10.0
"""Seconds to wait for Redis with a message in hand; the ledger sends another."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Scanner:
    """Runs jobs one after the other or all at once; holds no state of any of them."""

    ledger: Ledger
    leases: Leases
    pipeline: Pipeline
    result_cache_ttl: int

    async def run(self, job_id: str) -> None:
        """Work on the job until it has ended, is put back, or turns out to be another's.

        Raises Reject when this process is asked to stop: the message goes back to the queue for another worker.
        """
        claimed_until = asyncio.get_running_loop().time() + CLAIM_PATIENCE
        try:
            claim = await insist(partial(self.ledger.claim, job_id, uuid4().hex), until=claimed_until)
        except LedgerUnavailable as error:
            log.warning("job.left_to_sweep", job_id=job_id, error=str(error))
            return
        if claim is None:
            log.info("job.skipped", job_id=job_id)
            return
        structlog.contextvars.bind_contextvars(job_id=job_id, trace_id=claim.trace_id)
        log.info("job.claimed", attempts=claim.attempts)
        with self.leases.holding(claim) as held:
            try:
                await self._work(claim)
            except StaleClaim:
                log.warning("job.claim_lost")
            except LedgerUnavailable as error:
                # Nothing more can be written. The lease runs out and the sweep hands the job on.
                log.warning("job.left_to_sweep", error=str(error))
            except asyncio.CancelledError:
                if held.is_lost:
                    log.info("job.stopped")
                    return
                await self._release(claim)
                raise Reject(requeue=True) from None

    async def _release(self, claim: Claim) -> None:
        try:
            await self.ledger.release(claim)
        except LedgerUnavailable as error:
            log.warning("job.left_to_sweep", error=str(error))
        else:
            log.info("job.released")

    async def _work(self, claim: Claim) -> None:
        ends_at = asyncio.get_running_loop().time() + claim.time_left
        progress = _Progress(self.ledger, claim, ends_at)
        reuse = JobReuse(self.ledger, claim, self.result_cache_ttl)
        try:
            result = await self._run_until(ends_at, claim, progress, reuse)
        except PipelineError as error:
            await self._retry_or_fail(claim, error, progress.stage, ends_at)
        except (StaleClaim, LedgerUnavailable):
            raise
        except Exception:
            log.exception("job.broke")
            await self._fail(claim, Internal(), progress.stage, ends_at)
        else:
            await reuse.share(result)
            await insist(partial(self.ledger.complete, claim, result), until=ends_at)
            log.info("job.completed", model=result.observation.model, degraded=result.degraded, cached=result.cached)

    async def _run_until(self, ends_at: float, claim: Claim, progress: "_Progress", reuse: JobReuse) -> PipelineResult:
        try:
            async with asyncio.timeout_at(ends_at) as limit:
                return await self.pipeline.run(claim.input, resume=claim.checkpoints, emit=progress, reuse=reuse)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise JobDeadlineExceeded from error

    async def _retry_or_fail(self, claim: Claim, error: PipelineError, stage: Stage, ends_at: float) -> None:
        time_left = ends_at - asyncio.get_running_loop().time()
        decision = retry.decide(
            error,
            retries=claim.retries.get(error.spec.code, 0),
            time_left=time_left,
            chance=random.random(),  # noqa: S311 - jitter
        )
        match decision:
            case retry.RetryIn(seconds):
                spent = error.spent or Usage()
                put_back = partial(self.ledger.retry, claim, error.spec.code, delay=seconds, spent=spent)
                await insist(put_back, until=ends_at)
                log.warning("job.retry_planned", code=error.spec.code, seconds=seconds, detail=error.detail)
            case retry.GiveUp(reason):
                log.warning("job.given_up", reason=reason)
                await self._fail(claim, error, stage, ends_at)

    async def _fail(self, claim: Claim, error: PipelineError, stage: Stage, ends_at: float) -> None:
        spec = error.spec
        why = JobError(code=spec.code, retryable=spec.retryable, trace_id=claim.trace_id)
        await insist(partial(self.ledger.fail, claim, why, stage, spent=error.spent), until=ends_at)
        level = log.error if spec.alert else log.warning
        level("job.failed", code=spec.code, blame=spec.blame, stage=stage, detail=error.detail)


class _Progress:
    """The pipeline's `emit`: writes each step to the ledger and remembers the stage reached.

    A step waits for a Redis that is away, because it may hold what a model call was paid for.
    """

    def __init__(self, ledger: Ledger, claim: Claim, ends_at: float) -> None:
        self._ledger = ledger
        self._claim = claim
        self._ends_at = ends_at
        self._writes = 0
        self.stage = Stage.FETCH

    async def __call__(self, *events: StageEvent) -> None:
        self._writes += 1
        await insist(partial(self._ledger.record, self._claim, *events, write=self._writes), until=self._ends_at)
        self.stage = events[-1].stage
