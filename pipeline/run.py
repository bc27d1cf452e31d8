"""The story of one job, on one screen: fetch + image → vision → rules → answer."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from pipeline.answer import AnswerWriter
from pipeline.knowledge.knowledge import Knowledge
from pipeline.models import LOCAL, Gate, OnText, ignore_text, is_local
from pipeline.question import QuestionStage
from pipeline.rules import RuleMatcher
from pipeline.types import (
    Answer,
    Checkpoints,
    JobInput,
    Observation,
    PipelineResult,
    SourceImage,
    Stage,
    StageEvent,
    StageStatus,
)
from pipeline.vision import VisionStage


class Emit(Protocol):
    """Records steps, in order. The events of one call are recorded together or not at all."""

    async def __call__(self, *events: StageEvent) -> None: ...


@dataclass(frozen=True)
class RunResult:
    """A result, and its last steps, which were not emitted: they belong in one write with the job's end."""

    result: PipelineResult
    steps: tuple[StageEvent, ...]


class ResultCache(Protocol):
    """Earlier results of the same question about the same photo."""

    async def find(self, fingerprint: str) -> PipelineResult | None:
        """A result made earlier, or awaited from a job that is making it now; None: this job must make it."""
        ...


@dataclass(frozen=True)
class Pipeline:
    """Shared by all jobs of a process that began under the same resources; holds no state of any job.

    `setup` names the settings that change answers. `with_knowledge` makes a pipeline for other resources that shares
    the open clients, sessions and stores of this one; closing either closes them for both. It may be called on another
    thread, and raises ValueError.
    """

    load: Callable[[JobInput], Awaitable[SourceImage]]
    vision: VisionStage
    question: QuestionStage
    rules: RuleMatcher
    answer: AnswerWriter
    gate: Gate
    knowledge: Knowledge
    setup: str
    models: tuple[str, ...]
    with_knowledge: "Callable[[Knowledge], Pipeline]"
    expire_uploads: Callable[[], Awaitable[int]]
    close: Callable[[], Awaitable[None]]

    @property
    def version(self) -> str:
        """The fingerprint of the resources."""
        return self.knowledge.version

    async def run(
        self,
        job: JobInput,
        *,
        resume: Checkpoints,
        emit: Emit,
        reuse: ResultCache,
        on_text: OnText = ignore_text,
        model_override: str | None = None,
    ) -> RunResult:
        """Run the stages that `resume` lacks, on `model_override` or else on the model that the job asks for.

        Raises a PipelineError, or ModelPaused; events emitted by then stay true.
        """
        effective_job = job.model_copy(update={"model": model_override}) if model_override else job
        done = self._usable(resume)
        self._check_gate(effective_job, done)
        observation = done.observation
        clock = _Stopwatch()
        steps = []
        if observation is None and not job.has_photo:
            await emit(_skipped(Stage.FETCH), _started(Stage.VISION))
            observation = self._signed(await self.question.observe(effective_job))
            steps.append(_completed(Stage.VISION, clock, observation))
        elif observation is None:
            await emit(_started(Stage.FETCH))
            image = await self.load(job)
            await emit(_completed(Stage.FETCH, clock), _started(Stage.VISION))
            if earlier := await reuse.find(self._fingerprint(job, image)):
                return RunResult(earlier.model_copy(update={"cached": True}), _REUSED)
            call = self.vision.observe(image, effective_job)
            del image  # A job waits seconds for a model; the bytes need not.
            observation = self._signed(await call)
            steps.append(_completed(Stage.VISION, clock, observation))
        steps.append(_started(Stage.RULE))
        try:
            rule = self.rules.match(observation, job.locale)
            steps += (_completed(Stage.RULE, clock), _started(Stage.ANSWER))
        finally:  # The rule takes microseconds, so it has no write of its own; the observation was paid for.
            await emit(*steps)
        answer = done.answer or await self.answer.write(observation, rule, effective_job, on_text)
        degraded = self._is_degraded(job, observation, answer)
        result = PipelineResult(
            observation=observation, rule=rule, answer=answer, degraded=degraded, pipeline_version=self.version
        )
        return RunResult(result, (_completed(Stage.ANSWER, clock, answer),))

    def _signed(self, observation: Observation) -> Observation:
        return observation.model_copy(update={"pipeline_version": self.version})

    def _usable(self, resume: Checkpoints) -> Checkpoints:
        """None of them if the observation names a category that today's taxonomy lacks: then vision runs again."""
        return resume if resume.observation is None or self.rules.knows(resume.observation) else Checkpoints()

    def _check_gate(self, job: JobInput, done: Checkpoints) -> None:
        """A job whose next model is paused neither fetches its photo nor emits a stage, however often it is retried."""
        if done.observation is None:
            stage = self.vision if job.has_photo else self.question
            self.gate.check(stage.model_for(job).name)
        elif done.answer is None:
            self.gate.check(self.answer.writer_for(job).name)

    def _is_degraded(self, job: JobInput, observation: Observation, answer: Answer) -> bool:
        """Judged by the models that did the work, so that it also holds if an earlier attempt fell back."""
        return self.vision.requested_model(job) != LOCAL and (is_local(observation.model) or is_local(answer.model))

    def _fingerprint(self, job: JobInput, image: SourceImage) -> str:
        """A hash of all inputs of a result. Raises ModelAccount for a model that this process does not have."""
        models = self.vision.model_for(job).name, self.answer.writer_for(job).name
        inputs = (image.sha256, job.user_input, job.locale, self.version, self.setup, *models)
        return sha256("\0".join(inputs).encode()).hexdigest()


class _Stopwatch:
    """Seconds since it was last read."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return round(seconds, 4)


def _started(stage: Stage) -> StageEvent:
    return StageEvent(stage=stage, status=StageStatus.STARTED)


def _skipped(stage: Stage) -> StageEvent:
    return StageEvent(stage=stage, status=StageStatus.SKIPPED)


def _completed(stage: Stage, clock: _Stopwatch, checkpoint: Observation | Answer | None = None) -> StageEvent:
    return StageEvent(stage=stage, status=StageStatus.COMPLETED, seconds=clock.lap(), checkpoint=checkpoint)


_REUSED = tuple(
    StageEvent(stage=stage, status=StageStatus.COMPLETED, seconds=0.0)
    for stage in (Stage.VISION, Stage.RULE, Stage.ANSWER)
)
"""Completed, not skipped: existing clients advance on nothing else."""
