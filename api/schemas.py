"""What goes over the wire: the contract's requests and answers. How a job itself is shown is `jobs/view.py`."""

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from html import escape
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from jobs.deliveries import Attempt, Delivery
from jobs.model import Job, JobError, JobKind, JobStatus, OverBudget, Priority
from jobs.settings import JobsSettings
from jobs.usage import Day, ModelUsage, by_model, left_of
from jobs.view import WAIT, ErrorView, PipelineResultView, View, error_of, result_of
from pipeline.errors import Blame
from pipeline.knowledge.texts import ErrorText, Texts
from pipeline.storage import KEY
from pipeline.types import Locale, Refusal, Stage, StageStatus

API = "/api/v1"

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Request(BaseModel):
    """Older clients send fields that we never had or no longer have: they are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


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
    priority: Priority = Field(
        Priority.INTERACTIVE,
        description="`bulk`: work that may take its time. It lets interactive jobs pass, all but one in eight.",
    )
    callback_url: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        None,
        description="http or https address that is sent the job when it has ended (a webhook); all of it stays secret.",
        json_schema_extra={"examples": ["https://hooks.example/bunri"]},
    )


class ChatRequest(Request):
    """One question, whole in itself: a `session_id`, and whatever else older clients send, is ignored."""

    message: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        "",
        description="The question; with a photo it may be empty.",
        json_schema_extra={"examples": ["깨진 유리컵은?"]},
    )
    image_url: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        None, description="http or https link to a photo; its query stays secret."
    )
    image_key: Annotated[str, StringConstraints(pattern=f"^{KEY.pattern}$")] | None = Field(
        None, description="The `key` of an upload."
    )
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="For models that take one: PIPELINE_REASONING_EFFORT is `off`."
    )
    model: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        None, description="`local` or one of the configured models (see /api/v1/pipeline)."
    )
    locale: Locale = Field(Locale.KO, description="Language of the answer.")


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


class DeliveryState(StrEnum):
    """`none`: the job has no callback; `waiting`: it has not ended; `due`: an attempt is planned or under way."""

    NONE = "none"
    WAITING = "waiting"
    DUE = "due"
    DELIVERED = "delivered"
    GAVE_UP = "gave_up"
    STOPPED = "stopped"


class DeliveryView(View):
    """What became of a job's webhook. The address is not shown: it is a credential."""

    job_id: str
    state: DeliveryState
    next_attempt_at: float | None
    attempts: tuple[Attempt, ...]

    @classmethod
    def of(cls, job: Job, delivery: Delivery) -> Self:
        return cls(
            job_id=job.job_id,
            state=_delivery_state(job, delivery),
            next_attempt_at=delivery.due_at,
            attempts=delivery.attempts,
        )


def _delivery_state(job: Job, delivery: Delivery) -> DeliveryState:
    if not delivery.has_callback:
        return DeliveryState.NONE
    if not job.status.is_final:
        return DeliveryState.WAITING
    if delivery.due_at is not None or not delivery.attempts:
        return DeliveryState.DUE
    return DeliveryState(delivery.attempts[-1].outcome)


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
    """`stale` and `refusal` as for the API itself."""

    worker: str
    pipeline_version: str
    models: tuple[str, ...]
    stale: bool
    refusal: Refusal | None


class PipelineView(View):
    """`stale`: the files on disk are not those that this process uses. For a moment after an edit; for good when it was
    refused, or when the local model has changed, which takes a restart. `refusal`: which edit is not used, and why.

    `models` are those of the live workers; `workers` is null if nobody can say.
    """

    pipeline_version: str
    on_disk: str
    stale: bool
    refusal: Refusal | None
    fingerprints: dict[str, str]
    models: tuple[str, ...]
    workers: list[WorkerView] | None


class BillView(View):
    """Calls that were answered by a hosted model. `input_tokens` includes the cached ones."""

    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float = Field(description="0 for a model whose price nobody told.")

    @classmethod
    def of(cls, bill: ModelUsage) -> Self:
        used = bill.usage
        return cls(
            calls=bill.calls,
            input_tokens=used.input_tokens,
            cached_tokens=used.cached_tokens,
            output_tokens=used.output_tokens,
            cost_usd=round(used.cost_usd, 9),  # The ledger's are whole nanodollars; their sum as floats is not.
        )


class DayView(View):
    """One day in UTC."""

    day: date
    models: dict[str, BillView]
    total: BillView

    @classmethod
    def of(cls, day: Day) -> Self:
        return cls(day=day.day, models=_bills(day.models), total=BillView.of(day.total))


class BudgetView(View):
    """Of today. Without a limit (null) nothing is ever left or used up."""

    limit_usd: float | None
    spent_usd: float
    left_usd: float | None
    is_used_up: bool
    exceeded: OverBudget = Field(description="What becomes of jobs for hosted models once it is used up.")

    @classmethod
    def of(cls, spent: float, jobs: JobsSettings) -> Self:
        limit = jobs.model_budget_usd
        return cls(
            limit_usd=limit,
            spent_usd=spent,
            left_usd=left_of(limit, spent),
            is_used_up=limit is not None and spent >= limit,
            exceeded=jobs.model_budget_exceeded,
        )


class UsageView(View):
    """What hosted models have cost: `days` with the newest first, `models` and `total` over all of these."""

    days: list[DayView]
    models: dict[str, BillView]
    total: BillView
    budget: BudgetView

    @classmethod
    def of(cls, days: list[Day], jobs: JobsSettings) -> Self:
        """`days` begins with today."""
        return cls(
            days=[DayView.of(day) for day in days],
            models=_bills(by_model(days)),
            total=BillView.of(sum((day.total for day in days), ModelUsage())),
            budget=BudgetView.of(BillView.of(days[0].total).cost_usd, jobs),
        )


def _bills(models: Mapping[str, ModelUsage]) -> dict[str, BillView]:
    return {model: BillView.of(bill) for model, bill in models.items()}


class CheckView(View):
    """A check that is not `blocking` is for people to see and does not count for `ready`."""

    ok: bool
    blocking: bool = True
    detail: str


class ReadinessView(View):
    ready: bool
    pipeline_version: str
    checks: dict[str, CheckView]


class HealthView(View):
    status: Literal["ok"] = "ok"


def job_path(job_id: str, kind: JobKind) -> str:
    return f"{API}/{kind}/{job_id}"
