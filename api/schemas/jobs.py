"""Answers about one job: that it was taken, how far it is, how it ended."""

from html import escape
from typing import Literal, Self

from pydantic import Field

from api.paths import job_path
from jobs.model import Job, JobError, JobKind, JobStatus
from jobs.view import WAIT, ErrorView, PipelineResultView, View, error_of, result_of
from pipeline.knowledge.texts import Texts
from pipeline.types import Locale, Stage, StageStatus


class SubmittedView(View):
    """A job that was taken, with the paths to follow it. A repeat shows the first job as it is now."""

    job_id: str
    status: JobStatus
    stream_url: str
    result_url: str
    status_url: str
    cancel_url: str
    queue_position: int | None
    estimated_wait: float | None = WAIT
    pipeline_version: str

    @classmethod
    def of(
        cls,
        job_id: str,
        kind: JobKind,
        *,
        status: JobStatus,
        queue_position: int | None,
        estimated_wait: float | None,
        pipeline_version: str,
    ) -> Self:
        path = job_path(job_id, kind)
        return cls(
            job_id=job_id,
            status=status,
            stream_url=f"{path}/events",
            result_url=f"{path}/result",
            status_url=path,
            cancel_url=f"{path}/cancel",
            queue_position=queue_position,
            estimated_wait=estimated_wait,
            pipeline_version=pipeline_version,
        )


class ProcessingView(View):
    status: Literal["processing"] = "processing"
    current_stage: Stage
    progress: int
    message: str

    @classmethod
    def of(cls, job: Job, texts: Texts) -> Self:
        message = texts.message(f"stage.{job.stage}", job.input.locale)
        return cls(current_stage=job.stage, progress=job.progress, message=message)


class ResultView(View):
    """How a job ended. `reward` is always there, for clients that look for it."""

    task_id: str | None = Field(description="The job's id; null when a legacy request was refused before it was one.")
    status: Literal[JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]
    message: str
    pipeline_result: PipelineResultView | None
    reward: None = None
    error: ErrorView | None

    @classmethod
    def of(cls, job: Job, texts: Texts) -> Self:
        """`job` has ended."""
        return cls.model_validate(
            {
                "task_id": job.job_id,
                "status": job.status,
                "message": texts.message(f"result.{job.status}", job.input.locale),
                "pipeline_result": result_of(job),
                "error": error_of(job, texts),
            }
        )

    @classmethod
    def failed(cls, task_id: str | None, error: JobError, texts: Texts, locale: Locale) -> Self:
        return cls(
            task_id=task_id,
            status=JobStatus.FAILED,
            message=texts.message("result.failed", locale),
            pipeline_result=None,
            error=ErrorView.of(error, texts, locale),
        )


class ChatView(View):
    """The answer, escaped for HTML. With an `error_code` it says what went wrong and what to do about it."""

    user_answer: str
    error_code: str | None
    job_id: str | None = Field(description="Null when the question was refused before it was a job.")
    degraded: bool = Field(description="The local model answered in place of the one asked for.")

    @classmethod
    def of(cls, job: Job, texts: Texts) -> Self:
        """`job` has ended."""
        if job.result is None:
            code = job.error.code if job.error else "internal"
            return cls.failed(code, job.job_id, texts, job.input.locale)
        text = escape(job.result.answer.user_answer)
        return cls(user_answer=text, error_code=None, job_id=job.job_id, degraded=job.degraded)

    @classmethod
    def failed(cls, code: str, job_id: str | None, texts: Texts, locale: Locale) -> Self:
        text = texts.error(code, locale)
        return cls(user_answer=escape(f"{text.message} {text.advice}"), error_code=code, job_id=job_id, degraded=False)


class EventView(View):
    """The data of one event. `outcome`, and `error` or `result`, come with `done`, whose status is always completed."""

    seq: int
    ts: float
    job_id: str
    stage: Stage
    status: StageStatus
    progress: int
    outcome: Literal[JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED] | None = None
    error: ErrorView | None = None
    result: PipelineResultView | None = None
