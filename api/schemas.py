"""What goes over the wire: the contract's requests and answers, made from jobs and results.

The one place where text from a model or a user is escaped for HTML: existing clients show it as HTML.
"""

from html import escape
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.errors import Blame
from pipeline.storage import KEY
from pipeline.texts import ErrorText, Texts
from pipeline.types import Classification, Locale, PipelineResult, Stage, StageStatus, Usage
from workers.jobs.model import Job, JobError, JobKind, JobStatus, Timings

API = "/api/v1"

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Request(BaseModel):
    """Older clients send fields that we never had or no longer have: they are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScanRequest(Request):
    image_url: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        None,
        description="http or https link to the photo; its query stays secret. One of this and `image_key`.",
        json_schema_extra={"examples": ["https://photos.example/cup.jpg"]},
    )
    image_key: Annotated[str, StringConstraints(pattern=f"^{KEY.pattern}$")] | None = Field(
        None, description="The `key` of an upload."
    )
    user_input: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        None, description="The user's question or remark about the photo."
    )
    model: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        None, description="`local` or one of the configured models (see /api/v1/pipeline)."
    )
    locale: Locale = Field(Locale.KO, description="Language of every text in the result.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Echoed back as it came, not escaped."
    )
    priority: Literal["interactive"] = Field(
        "interactive", description="There is one queue; `bulk` is refused until there are two."
    )
    callback_url: None = Field(None, description="Refused: there are no webhooks yet.")


class ClassifyRequest(Request):
    """The legacy synchronous request."""

    image_url: Annotated[str, StringConstraints(max_length=8192)] | None = None
    user_input: Annotated[str, StringConstraints(max_length=2000)] | None = None


class UploadRequest(Request):
    """`filename`, `uploader_id` and `metadata` come from older clients; the key holds nothing of them."""

    filename: Annotated[str, StringConstraints(max_length=255)] | None = None
    content_type: Annotated[str, StringConstraints(max_length=100)]


class UploadDone(Request):
    key: Annotated[str, StringConstraints(pattern=f"^{KEY.pattern}$")]


class UploadView(View):
    """PUT the file to `upload_url` with `required_headers`, then name `key` or `cdn_url` in a scan."""

    key: str
    upload_url: str
    cdn_url: str
    expires_in: int
    required_headers: dict[str, str]


class UploadDoneView(View):
    key: str


class SubmittedView(View):
    """A job that was taken, with the paths to follow it. A repeat shows the first job as it is now."""

    job_id: str
    status: JobStatus
    stream_url: str
    result_url: str
    status_url: str
    cancel_url: str
    queue_position: int | None
    pipeline_version: str

    @classmethod
    def of(cls, job_id: str, *, status: JobStatus, queue_position: int | None, pipeline_version: str) -> Self:
        path = job_path(job_id)
        return cls(
            job_id=job_id,
            status=status,
            stream_url=f"{path}/events",
            result_url=f"{path}/result",
            status_url=path,
            cancel_url=f"{path}/cancel",
            queue_position=queue_position,
            pipeline_version=pipeline_version,
        )


class ErrorView(View):
    """Why a job failed: `message` is in the job's language and says what to do about it."""

    code: str
    message: str
    retryable: bool
    trace_id: str

    @classmethod
    def of(cls, error: JobError, texts: Texts, locale: Locale) -> Self:
        text = texts.error(error.code, locale)
        message = f"{text.message} {text.advice}"
        return cls(code=error.code, message=message, retryable=error.retryable, trace_id=error.trace_id)


class MetaView(View):
    user_input: str


class ClassificationView(View):
    classification: Classification
    situation_tags: tuple[str, ...]
    confidence: float
    meta: MetaView


class FinalAnswerView(View):
    """`disposal_steps` is an object (`단계1`, `단계2`, …) because existing clients read it so."""

    disposal_steps: dict[str, str]
    insufficiencies: tuple[str, ...]
    user_answer: str


class PipelineResultView(View):
    """`disposal_rules` is the rule's key and category, and the rule document itself."""

    classification_result: ClassificationView
    disposal_rules: dict[str, Any]
    final_answer: FinalAnswerView

    @classmethod
    def of(cls, result: PipelineResult, user_input: str) -> Self:
        seen, rule, answer = result.observation, result.rule, result.answer
        return cls(
            classification_result=ClassificationView(
                classification=seen.classification,
                situation_tags=seen.situation_tags,
                confidence=seen.confidence,
                meta=MetaView(user_input=escape(user_input)),
            ),
            disposal_rules={"key": rule.key, "category": rule.category, **rule.document},
            final_answer=FinalAnswerView(
                disposal_steps={f"단계{n}": escape(step) for n, step in enumerate(answer.disposal_steps, start=1)},
                insufficiencies=tuple(escape(text) for text in answer.insufficiencies),
                user_answer=escape(answer.user_answer),
            ),
        )


class JobView(View):
    """The job resource. Times are Unix seconds, durations seconds."""

    job_id: str
    kind: JobKind
    status: JobStatus
    stage: Stage
    progress: int
    queue_position: int | None
    attempts: int
    pipeline_version: str
    model: str | None
    degraded: bool
    cached: bool
    created_at: float
    started_at: float | None
    finished_at: float | None
    timings: Timings
    usage: Usage
    metadata: dict[str, str]
    error: ErrorView | None
    result: PipelineResultView | None

    @classmethod
    def of(cls, job: Job, texts: Texts) -> Self:
        return cls(
            job_id=job.job_id,
            kind=job.kind,
            status=job.status,
            stage=job.stage,
            progress=job.progress,
            queue_position=job.queue_position,
            attempts=job.attempts,
            pipeline_version=job.pipeline_version,
            model=job.model,
            degraded=job.degraded,
            cached=job.cached,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            timings=job.timings,
            usage=job.usage,
            metadata=job.metadata,
            error=error_of(job, texts),
            result=result_of(job),
        )


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


class ProcessingView(View):
    status: Literal["processing"] = "processing"
    current_stage: Stage
    progress: int
    message: str

    @classmethod
    def of(cls, job: Job, texts: Texts) -> Self:
        message = texts.message(f"stage.{job.stage}", job.input.locale)
        return cls(current_stage=job.stage, progress=job.progress, message=message)


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


class CategoryView(View):
    id: str
    name: str
    display_name: str
    instructions: list[str]


class MistakeView(View):
    field: str
    kind: str
    reason: str


class ProblemView(View):
    """RFC 9457. `errors` comes with `request.invalid` and never quotes what was sent."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    trace_id: str
    errors: list[MistakeView] | None = None


class CatalogueEntryView(View):
    """One code: `retryable` says whether the same request may succeed later."""

    code: str
    status: int
    retryable: bool
    blame: Blame
    raised_when: str
    messages: dict[Locale, ErrorText]


class WorkerView(View):
    worker: str
    pipeline_version: str
    models: tuple[str, ...]


class PipelineView(View):
    """`stale`: the files on disk are not those that this process has loaded. `models` are those of the live workers.

    `workers` is null if nobody can say.
    """

    pipeline_version: str
    on_disk: str
    stale: bool
    fingerprints: dict[str, str]
    models: tuple[str, ...]
    workers: list[WorkerView] | None


class CheckView(View):
    ok: bool
    detail: str


class ReadinessView(View):
    ready: bool
    pipeline_version: str
    checks: dict[str, CheckView]


class HealthView(View):
    status: Literal["ok"] = "ok"


def job_path(job_id: str) -> str:
    return f"{API}/scan/{job_id}"


def result_of(job: Job) -> PipelineResultView | None:
    return PipelineResultView.of(job.result, job.input.user_input) if job.result else None


def error_of(job: Job, texts: Texts) -> ErrorView | None:
    return ErrorView.of(job.error, texts, job.input.locale) if job.error else None
