"""One job in a worker: claim → pipeline.run → finish. The only `except PipelineError` in workers."""

import asyncio
import random
from dataclasses import dataclass

import structlog
from celery.exceptions import Reject

from pipeline.errors import Internal, JobDeadlineExceeded, PipelineError
from pipeline.run import Pipeline
from pipeline.types import PipelineResult, Stage, StageEvent, Usage
from workers import retry
from workers.jobs.connection import LedgerUnavailable
from workers.jobs.ledger import Ledger, StaleClaim
from workers.jobs.model import Claim, JobError
from workers.leases import Leases
from workers.reuse import JobReuse

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
        try:
            claim = await self.ledger.claim(job_id)
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
                await self.ledger.release(claim)
                log.info("job.released")
                raise Reject(requeue=True) from None

    async def _work(self, claim: Claim) -> None:
        progress = _Progress(self.ledger, claim)
        reuse = JobReuse(self.ledger, claim, self.result_cache_ttl)
        ends_at = asyncio.get_running_loop().time() + claim.time_left
        try:
            result = await self._run_until(ends_at, claim, progress, reuse)
        except PipelineError as error:
            await self._retry_or_fail(claim, error, progress.stage, ends_at)
        except (StaleClaim, LedgerUnavailable):
            raise
        except Exception:
            log.exception("job.broke")
            await self._fail(claim, Internal(), progress.stage)
        else:
            await reuse.share(result)
            await self.ledger.complete(claim, result)
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
                await self.ledger.retry(claim, error.spec.code, delay=seconds, spent=error.spent or Usage())
                log.warning("job.retry_planned", code=error.spec.code, seconds=seconds, detail=error.detail)
            case retry.GiveUp(reason):
                log.warning("job.given_up", reason=reason)
                await self._fail(claim, error, stage)

    async def _fail(self, claim: Claim, error: PipelineError, stage: Stage) -> None:
        spec = error.spec
        await self.ledger.fail(
            claim,
            JobError(code=spec.code, retryable=spec.retryable, trace_id=claim.trace_id),
            stage,
            spent=error.spent,
        )
        level = log.error if spec.alert else log.warning
        level("job.failed", code=spec.code, blame=spec.blame, stage=stage, detail=error.detail)


class _Progress:
    """The pipeline's `emit`: writes each step to the ledger and remembers the stage reached."""

    def __init__(self, ledger: Ledger, claim: Claim) -> None:
        self._ledger = ledger
        self._claim = claim
        self.stage = Stage.FETCH

    async def __call__(self, *events: StageEvent) -> None:
        await self._ledger.record(self._claim, *events)
        self.stage = events[-1].stage
