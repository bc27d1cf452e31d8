"""The views of a job: the same JSON by poll, stream and webhook.

Text from a model or a user is escaped for HTML here and, for the synchronous answer to a chat, in `ChatView`
(`api/schemas/jobs.py`): existing clients show it as HTML.
"""

from datetime import UTC, datetime
from html import escape
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from jobs.feed.drafts import TextDelta
from jobs.model import Job, JobError, JobKind, JobStatus, Priority, Timings
from kit.text import clean
from pipeline.knowledge.texts import Texts
from pipeline.types import Classification, Locale, NamedThing, PipelineResult, RuleMatch, Stage, StageStatus, Usage

WAIT: Any = Field(
    description="Seconds until a worker takes the waiting job, at the present pace. "
    "Null when it does not wait, or nobody can say."
)


class View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    """`user_input` is without what nobody sees, such as control characters. `pipeline_version` is of the pipeline that
    looked at the photo: a job may be tried again under another one.
    """

    user_input: str
    pipeline_version: str | None


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


class NamedThingView(View):
    """A further thing of a question. `name` is as the model that read the question calls it."""

    name: str
    classification: Classification
    situation_tags: tuple[str, ...]
    confidence: float
    disposal_rules: dict[str, Any]

    @classmethod
    def of(cls, thing: NamedThing, rule: RuleMatch) -> Self:
        return cls(
            name=escape(thing.name),
            classification=thing.classification,
            situation_tags=thing.situation_tags,
            confidence=thing.confidence,
            disposal_rules=_rules(rule),
        )


class PipelineResultView(View):
    """`disposal_rules` is the rule's key and category, and the rule document itself; `pipeline_version` made it.

    `others` are the further things that a question in words names.
    """

    classification_result: ClassificationView
    disposal_rules: dict[str, Any]
    final_answer: FinalAnswerView
    others: tuple[NamedThingView, ...] = ()
    pipeline_version: str | None

    @classmethod
    def of(cls, result: PipelineResult, user_input: str) -> Self:
        seen, rule, answer = result.observation, result.rule, result.answer
        return cls(
            classification_result=ClassificationView(
                classification=seen.classification,
                situation_tags=seen.situation_tags,
                confidence=seen.confidence,
                # A line separator would end an event for clients that split lines as Python does.
                meta=MetaView(user_input=escape(clean(user_input)), pipeline_version=seen.pipeline_version),
            ),
            disposal_rules=_rules(rule),
            final_answer=FinalAnswerView(
                disposal_steps={f"단계{n}": escape(step) for n, step in enumerate(answer.disposal_steps, start=1)},
                insufficiencies=tuple(escape(text) for text in answer.insufficiencies),
                user_answer=escape(answer.user_answer),
            ),
            others=tuple(NamedThingView.of(*each) for each in zip(seen.others, rule.others, strict=True)),
            pipeline_version=result.pipeline_version,
        )


def _rules(rule: RuleMatch) -> dict[str, Any]:
    return {"key": rule.key, "category": rule.category, **rule.document}


class JobView(View):
    """The job resource. Times are Unix seconds, durations seconds.

    `pipeline_version` is of the pipeline that made the result or works on it; before a worker has the job, the API's.
    """

    job_id: str
    kind: JobKind
    priority: Priority
    status: JobStatus
    stage: Stage
    progress: int
    queue_position: int | None
    estimated_wait: float | None = WAIT
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
            priority=job.priority,
            status=job.status,
            stage=job.stage,
            progress=job.progress,
            queue_position=job.queue_position,
            estimated_wait=job.estimated_wait,
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


class TokenView(View):
    """More of the answer while it is written, escaped for HTML. `restart`: the text before this is to be forgotten."""

    job_id: str
    stage: Literal[Stage.ANSWER] = Stage.ANSWER
    status: Literal[StageStatus.STARTED] = StageStatus.STARTED
    text: str
    restart: bool

    @classmethod
    def of(cls, job_id: str, delta: TextDelta) -> Self:
        return cls(job_id=job_id, text=escape(delta.text), restart=delta.restart)


class WebhookView(View):
    """What a `callback_url` is sent when its job has ended; `timestamp` is when that was."""

    type: Literal["job.completed", "job.failed", "job.cancelled"]
    timestamp: datetime
    data: JobView

    @classmethod
    def of(cls, job: Job, texts: Texts) -> Self:
        return cls.model_validate(
            {
                "type": f"job.{job.status}",
                "timestamp": datetime.fromtimestamp(job.finished_at or 0, UTC),
                "data": JobView.of(job, texts),
            }
        )


def result_of(job: Job) -> PipelineResultView | None:
    return PipelineResultView.of(job.result, job.input.user_input) if job.result else None


def error_of(job: Job, texts: Texts) -> ErrorView | None:
    return ErrorView.of(job.error, texts, job.input.locale) if job.error else None
