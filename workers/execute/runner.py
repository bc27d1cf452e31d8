"""Runs one job: claim → pipeline.run → complete, retry or fail. The only `except PipelineError` in workers."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import structlog

from jobs.errors import LedgerUnavailable, StaleClaim
from jobs.feed.drafts import DraftStore
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
"""Once all attempts are used up, the fallback model may do better."""

MAX_CLAIM_WAIT_SECONDS = 10.0
"""A message is given up after waiting this long for Redis: the ledger sends another."""

log = structlog.get_logger()


@dataclass(frozen=True)
class JobRunner:
    """One per process. Runs any number of jobs concurrently; keeps no state between them.

    `current_pipeline` returns the pipeline in use: a job takes it when it is claimed, and keeps it to its end.
    `fallback` names the model that replaces one that fails, `over_budget` the one that replaces all hosted models while
    today's budget is used up. `result_cache_ttl` is in seconds.
    """

    ledger: Ledger
    previews: DraftStore
    leases: Leases
    current_pipeline: Callable[[], Pipeline]
    result_cache_ttl: int
    fallback: str | None = None
    over_budget: str | None = None

    async def run(self, job_id: str) -> None:
        """Return when the job has ended, waits for a retry, or belongs to another worker.

        Raises CancelledError when this process is asked to stop; by then the job is released for another worker.
        """
        pipeline = self.current_pipeline()
        claim_deadline = asyncio.get_running_loop().time() + MAX_CLAIM_WAIT_SECONDS
        try:
            claim_job = partial(self.ledger.claims.claim, job_id, uuid4().hex, version=pipeline.version)
            claim = await retry_write(claim_job, deadline=claim_deadline)
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
                raise

    async def _release(self, claim: Claim) -> None:
        try:
            await self.ledger.claims.release(claim)
        except LedgerUnavailable as error:
            log.warning("job.left_to_sweep", error=str(error))
        else:
            log.info("job.released")

    async def _work(self, held: HeldLease, pipeline: Pipeline) -> None:
        claim = held.claim
        deadline = asyncio.get_running_loop().time() + claim.time_left
        run = _Run(
            claim=claim,
            pipeline=pipeline,
            progress=_Progress(self.ledger, claim, deadline),
            result_cache=self._result_cache(claim),
            preview=PreviewWriter(self.previews, claim, held.revoke),
            deadline=deadline,
            chance=random.random(),  # noqa: S311 - jitter
        )
        try:
            run_result = await self._run_with_preview(run)
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
            result = run_result.result
            shared = run.result_cache.to_share(result)
            complete = partial(self.ledger.claims.complete, run.claim, result, *run_result.steps, shared=shared)
            await retry_write(complete, deadline=run.deadline)
            log.info("job.completed", model=result.observation.model, degraded=result.degraded, cached=result.cached)

    def _result_cache(self, claim: Claim) -> JobResultCache:
        """Chats neither read nor fill the cache."""
        is_chat = claim.input.form is AnswerForm.PROSE
        return JobResultCache(self.ledger, claim, 0 if is_chat else self.result_cache_ttl)

    async def _run_with_preview(self, run: "_Run") -> RunResult:
        """Close the preview before the job's end is written: that write makes the claim stale."""
        try:
            run_result = await self._run_or_fall_back(run)
            await run.preview.flush()
        finally:
            await run.preview.close()
        return run_result

    async def _run_or_fall_back(self, run: "_Run") -> RunResult:
        """Run with the model asked for; if it is not available, finish the remaining stages with the fallback model."""
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
        """The model that finishes the remaining stages. None: the error stands."""
        if isinstance(error, ModelBudgetExhausted):
            return self.over_budget
        if isinstance(error, FALLBACK_ERRORS) and isinstance(run.plan(error), GiveUp):
            return self.fallback
        return None

    async def _run_until_deadline(self, run: "_Run", *, model_override: str | None = None) -> RunResult:
        try:
            async with asyncio.timeout_at(run.deadline) as limit:
                return await run.pipeline.run(
                    run.claim.input,
                    resume=run.progress.done,
                    emit=run.progress,
                    reuse=run.result_cache,
                    on_text=run.preview,
                    model_override=model_override,
                )
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise JobDeadlineExceeded from error

    async def _park_or_fail(self, run: "_Run", pause: ModelPaused) -> None:
        match retry.wait_out(pause, time_left=run.time_left, chance=run.chance):
            case RetryIn(seconds):
                await retry_write(partial(self.ledger.claims.park, run.claim, delay=seconds), deadline=run.deadline)
                log.info("job.parked", model=pause.model, code=pause.cause.spec.code, seconds=seconds)
            case GiveUp(reason):
                log.warning("job.given_up", reason=reason)
                stage = Stage.ANSWER if run.progress.done.observation else Stage.VISION
                await self._fail(run, pause.cause(str(pause)), stage)

    async def _retry_or_fail(self, run: "_Run", error: PipelineError) -> None:
        match run.plan(error):
            case RetryIn(seconds):
                plan_retry = partial(
                    self.ledger.claims.retry, run.claim, error.spec.code, delay=seconds, spent=error.spent
                )
                await retry_write(plan_retry, deadline=run.deadline)
                log.warning("job.retry_planned", code=error.spec.code, seconds=seconds, detail=error.detail)
            case GiveUp(reason):
                log.warning("job.given_up", reason=reason)
                await self._fail(run, error, run.progress.stage)

    async def _fail(self, run: "_Run", error: PipelineError, stage: Stage) -> None:
        spec = error.spec
        job_error = JobError(code=spec.code, retryable=spec.retryable, trace_id=run.claim.trace_id)
        await retry_write(
            partial(self.ledger.claims.fail, run.claim, job_error, stage, spent=error.spent), deadline=run.deadline
        )
        level = log.error if spec.alert else log.warning
        level("job.failed", code=spec.code, blame=spec.blame, stage=stage, detail=error.detail)


class _Progress:
    """The pipeline's `emit`: writes each step to the ledger, and keeps the stage reached and the checkpoints.

    A step is retried while Redis is down: it may hold the result of a paid model call.
    """

    def __init__(self, ledger: Ledger, claim: Claim, deadline: float) -> None:
        self._ledger = ledger
        self._claim = claim
        self._deadline = deadline
        self._writes = 0
        self.stage = Stage.FETCH
        self.done = claim.checkpoints

    async def __call__(self, *events: StageEvent) -> None:
        await self._write(*events)
        self.stage = events[-1].stage
        for event in events:
            self.done = _with_checkpoint(self.done, event.checkpoint)

    async def charge(self, spent: PaidCall) -> None:
        """Record a paid call that failed, before the job goes on with another model."""
        await self._write(spent=spent)

    async def _write(self, *events: StageEvent, spent: PaidCall | None = None) -> None:
        self._writes += 1
        write = partial(self._ledger.claims.record, self._claim, *events, write=self._writes, spent=spent)
        await retry_write(write, deadline=self._deadline)


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
    """One attempt at a job. `deadline` is by the loop's clock; `chance`, uniform in [0, 1), scales every jitter."""

    claim: Claim
    pipeline: Pipeline
    progress: _Progress
    result_cache: JobResultCache
    preview: PreviewWriter
    deadline: float
    chance: float

    @property
    def time_left(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()

    def plan(self, error: PipelineError) -> RetryIn | GiveUp:
        retries = self.claim.retries.get(error.spec.code, 0)
        return retry.decide(error, retries=retries, time_left=self.time_left, chance=self.chance)
