"""One job in a worker: claim → pipeline.run → finish. The only `except PipelineError` in workers."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import structlog
from celery.exceptions import Reject

from jobs.drafts import DraftStore
from jobs.errors import LedgerUnavailable, StaleClaim
from jobs.ledger.ledger import Ledger
from jobs.model import Claim, JobError
from pipeline.errors import (
    Internal,
    JobDeadlineExceeded,
    ModelAccount,
    ModelBadOutput,
    ModelBudgetExhausted,
    ModelRateLimited,
    ModelTimeout,
    ModelUnavailable,
    PipelineError,
)
from pipeline.models import ModelPaused
from pipeline.run import Pipeline, RunResult
from pipeline.types import Answer, AnswerForm, Checkpoints, Observation, PaidCall, Stage, StageEvent
from workers.execute import retry
from workers.execute.leases import HeldLease, Leases
from workers.execute.preview import PreviewWriter
from workers.execute.result_cache import JobResultCache
from workers.execute.retry import GiveUp, RetryIn
from workers.execute.write_retry import retry_write

FALLBACK_ERRORS = (ModelRateLimited, ModelUnavailable, ModelTimeout, ModelBadOutput, ModelAccount)
"""What another model may do better, once all attempts are used up."""

CLAIM_PATIENCE = 10.0
"""Seconds to wait for Redis with a message in hand; the ledger sends another."""

log = structlog.get_logger()


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs one after the other or all at once; holds no state of any of them.

    `pipeline` tells the one in use now: a job takes it when it is claimed and keeps it, whatever comes after.
    `fallback` names the model that answers where the one asked for cannot, `over_budget` the one that does while
    today's budget is used up.
    """

    ledger: Ledger
    drafts: DraftStore
    leases: Leases
    pipeline: Callable[[], Pipeline]
    result_cache_ttl: int
    fallback: str | None = None
    over_budget: str | None = None

    async def run(self, job_id: str) -> None:
        """Work on the job until it has ended, is put back, or turns out to be another's.

        Raises Reject when this process is asked to stop: the message goes back to the queue for another worker.
        """
        pipeline = self.pipeline()
        claimed_until = asyncio.get_running_loop().time() + CLAIM_PATIENCE
        try:
            take = partial(self.ledger.claims.claim, job_id, uuid4().hex, version=pipeline.version)
            claim = await retry_write(take, until=claimed_until)
        except LedgerUnavailable as error:
            log.warning("job.left_to_sweep", job_id=job_id, error=str(error))
            return
        if claim is None:
            log.info("job.skipped", job_id=job_id)
            return
        structlog.contextvars.bind_contextvars(job_id=job_id, trace_id=claim.trace_id)
        log.info("job.claimed", attempts=claim.attempts, pipeline_version=pipeline.version)
        with self.leases.hold(claim) as held:
            try:
                await self._work(held, pipeline)
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
            await self.ledger.claims.release(claim)
        except LedgerUnavailable as error:
            log.warning("job.left_to_sweep", error=str(error))
        else:
            log.info("job.released")

    async def _work(self, held: HeldLease, pipeline: Pipeline) -> None:
        claim = held.claim
        ends_at = asyncio.get_running_loop().time() + claim.time_left
        run = _Run(
            claim=claim,
            pipeline=pipeline,
            progress=_Progress(self.ledger, claim, ends_at),
            reuse=self._reuse(claim),
            draft=PreviewWriter(self.drafts, claim, held.revoke),
            ends_at=ends_at,
            chance=random.random(),  # noqa: S311 - jitter
        )
        try:
            finished = await self._drafted(run)
        except ModelPaused as pause:
            await self._park_or_fail(run, pause)
        except PipelineError as error:
            await self._retry_or_fail(run, error)
        except (StaleClaim, LedgerUnavailable):
            raise
        except Exception:
            log.exception("job.broke")
            await self._fail(run, Internal(), run.progress.stage)
        else:
            result = finished.result
            shared = run.reuse.to_share(result)
            complete = partial(self.ledger.claims.complete, run.claim, result, *finished.steps, shared=shared)
            await retry_write(complete, until=run.ends_at)
            log.info("job.completed", model=result.observation.model, degraded=result.degraded, cached=result.cached)

    def _reuse(self, claim: Claim) -> JobResultCache:
        """Nothing that was said in a chat is kept for another."""
        is_chat = claim.input.form is AnswerForm.PROSE
        return JobResultCache(self.ledger, claim, 0 if is_chat else self.result_cache_ttl)

    async def _drafted(self, run: "_Run") -> RunResult:
        """The draft is closed before the job's end is written: from then on a stale claim may be this run's doing."""
        try:
            finished = await self._answer(run)
            await run.draft.flush()
        finally:
            await run.draft.close()
        return finished

    async def _answer(self, run: "_Run") -> RunResult:
        """As asked; or, of what is still to do, by the fallback model, when the one asked for cannot be had."""
        try:
            return await self._run_until_deadline(run)
        except ModelPaused as pause:
            if (model_override := self.fallback) is None:
                raise
            log.warning("job.fell_back", code=pause.cause.spec.code, seconds=pause.seconds)
        except PipelineError as error:
            if (model_override := self._fallback_for(run, error)) is None:
                raise
            if error.spent is not None:
                await run.progress.charge(error.spent)
            log.warning("job.fell_back", code=error.spec.code, detail=error.detail)
        return await self._run_until_deadline(run, model_override=model_override)

    def _fallback_for(self, run: "_Run", error: PipelineError) -> str | None:
        """The model that does what is left; None: the error stands."""
        if isinstance(error, ModelBudgetExhausted):
            return self.over_budget
        if isinstance(error, FALLBACK_ERRORS) and isinstance(run.plan(error), GiveUp):
            return self.fallback
        return None

    async def _run_until_deadline(self, run: "_Run", *, model_override: str | None = None) -> RunResult:
        try:
            async with asyncio.timeout_at(run.ends_at) as limit:
                return await run.pipeline.run(
                    run.claim.input,
                    resume=run.progress.done,
                    emit=run.progress,
                    reuse=run.reuse,
                    on_text=run.draft,
                    model_override=model_override,
                )
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise JobDeadlineExceeded from error

    async def _park_or_fail(self, run: "_Run", pause: ModelPaused) -> None:
        match retry.wait_out(pause, time_left=run.time_left, chance=run.chance):
            case RetryIn(seconds):
                await retry_write(partial(self.ledger.claims.park, run.claim, delay=seconds), until=run.ends_at)
                log.info("job.parked", model=pause.model, code=pause.cause.spec.code, seconds=seconds)
            case GiveUp(reason):
                log.warning("job.given_up", reason=reason)
                stage = Stage.ANSWER if run.progress.done.observation else Stage.VISION
                await self._fail(run, pause.cause(str(pause)), stage)

    async def _retry_or_fail(self, run: "_Run", error: PipelineError) -> None:
        match run.plan(error):
            case RetryIn(seconds):
                put_back = partial(
                    self.ledger.claims.retry, run.claim, error.spec.code, delay=seconds, spent=error.spent
                )
                await retry_write(put_back, until=run.ends_at)
                log.warning("job.retry_planned", code=error.spec.code, seconds=seconds, detail=error.detail)
            case GiveUp(reason):
                log.warning("job.given_up", reason=reason)
                await self._fail(run, error, run.progress.stage)

    async def _fail(self, run: "_Run", error: PipelineError, stage: Stage) -> None:
        spec = error.spec
        why = JobError(code=spec.code, retryable=spec.retryable, trace_id=run.claim.trace_id)
        await retry_write(partial(self.ledger.claims.fail, run.claim, why, stage, spent=error.spent), until=run.ends_at)
        level = log.error if spec.alert else log.warning
        level("job.failed", code=spec.code, blame=spec.blame, stage=stage, detail=error.detail)


class _Progress:
    """The pipeline's `emit`: writes each step to the ledger, remembers the stage reached and what is done.

    A step waits for a Redis that is away, because it may hold what a model call was paid for.
    """

    def __init__(self, ledger: Ledger, claim: Claim, ends_at: float) -> None:
        self._ledger = ledger
        self._claim = claim
        self._ends_at = ends_at
        self._writes = 0
        self.stage = Stage.FETCH
        self.done = claim.checkpoints

    async def __call__(self, *events: StageEvent) -> None:
        await self._write(*events)
        self.stage = events[-1].stage
        for event in events:
            self.done = _with_checkpoint(self.done, event.checkpoint)

    async def charge(self, spent: PaidCall) -> None:
        """Write down a call that came to nothing, before the job goes on without it."""
        await self._write(spent=spent)

    async def _write(self, *events: StageEvent, spent: PaidCall | None = None) -> None:
        self._writes += 1
        write = partial(self._ledger.claims.record, self._claim, *events, write=self._writes, spent=spent)
        await retry_write(write, until=self._ends_at)


def _with_checkpoint(done: Checkpoints, checkpoint: Observation | Answer | None) -> Checkpoints:
    match checkpoint:
        case Observation():
            return done.model_copy(update={"observation": checkpoint})
        case Answer():
            return done.model_copy(update={"answer": checkpoint})
        case None:
            return done


@dataclass(frozen=True)
class _Run:
    """One attempt at a job. `ends_at` is its deadline by the loop's clock, `chance` its share of every jitter."""

    claim: Claim
    pipeline: Pipeline
    progress: _Progress
    reuse: JobResultCache
    draft: PreviewWriter
    ends_at: float
    chance: float

    @property
    def time_left(self) -> float:
        return self.ends_at - asyncio.get_running_loop().time()

    def plan(self, error: PipelineError) -> RetryIn | GiveUp:
        retries = self.claim.retries.get(error.spec.code, 0)
        return retry.decide(error, retries=retries, time_left=self.time_left, chance=self.chance)
