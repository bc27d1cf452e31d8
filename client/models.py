"""Answers of the API. Unknown fields, from newer servers, are ignored."""

from enum import StrEnum
from html import unescape
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

Plain = Annotated[str, AfterValidator(unescape)]
"""Text that the API escapes for clients that show it as HTML, unescaped."""


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Submitted(_Answer):
    job_id: str
    status: Status
    stream_url: str
    result_url: str
    status_url: str
    cancel_url: str
    queue_position: int | None
    estimated_wait: float | None = None
    pipeline_version: str


class ChatAnswer(_Answer):
    """The answer; with an `error_code`, the failure and the advice. `job_id` is None if there was no job."""

    user_answer: Plain
    error_code: str | None
    job_id: str | None
    degraded: bool


class Upload(_Answer):
    """A link to PUT one photo, valid for `expires_in` seconds. `key` is the photo's name in a scan."""

    key: str
    upload_url: str
    cdn_url: str
    expires_in: int
    required_headers: dict[str, str]


class JobError(_Answer):
    code: str
    message: str
    retryable: bool
    trace_id: str


class Category(_Answer):
    major_category: str
    middle_category: str
    minor_category: str | None


class Classification(_Answer):
    classification: Category
    situation_tags: tuple[str, ...]
    confidence: float


class FinalAnswer(_Answer):
    disposal_steps: dict[str, Plain]
    insufficiencies: tuple[Plain, ...]
    user_answer: Plain


class PipelineResult(_Answer):
    classification_result: Classification
    disposal_rules: dict[str, Any]
    final_answer: FinalAnswer
    pipeline_version: str | None = None


class Job(_Answer):
    """Times are Unix seconds, durations seconds. `queue_position` and `estimated_wait` are set for queued jobs only."""

    job_id: str
    priority: str = "interactive"
    status: Status
    queue_position: int | None = None
    estimated_wait: float | None = None
    stage: str
    progress: int
    attempts: int
    pipeline_version: str
    model: str | None
    degraded: bool
    cached: bool = False
    created_at: float
    started_at: float | None
    finished_at: float | None
    timings: dict[str, float | None]
    metadata: dict[str, str]
    error: JobError | None
    result: PipelineResult | None


class Event(_Answer):
    """`outcome` is set in the last event, whose stage is `done`."""

    seq: int
    job_id: str
    stage: str
    status: str
    progress: int
    outcome: Status | None = None


class Attempt(_Answer):
    """One attempt to deliver a webhook: the HTTP status, or the `error` if there was none."""

    number: int
    at: float
    status: int | None
    error: str | None
    seconds: float | None
    outcome: str
    retry_in: float | None


class Delivery(_Answer):
    """`state`: `none` for a job without a callback_url, else `waiting`, `due`, `delivered`, `gave_up` or `stopped`."""

    job_id: str
    state: str
    next_attempt_at: float | None
    attempts: tuple[Attempt, ...]


class Refusal(_Answer):
    """A rejected edit of the resources, and the mistakes in it."""

    version: str
    detail: str


class Worker(_Answer):
    worker: str
    pipeline_version: str
    stale: bool = False
    refusal: Refusal | None = None


class Pipeline(_Answer):
    """Versions in use by the API and the live workers; `workers` is None when Redis cannot be reached.

    `on_disk` is the version of the API's files.
    """

    pipeline_version: str
    on_disk: str
    stale: bool
    refusal: Refusal | None = None
    workers: tuple[Worker, ...] | None
