"""Error catalogue: each way in which a job can fail is an exception class with a spec. Standard library only.

A class is raised where the fault is detected and translated once, at the seam to the caller. `detail` is for the log.
The user's text is in `resources/messages/{locale}.toml` under the code; it never contains the detail.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar


class Blame(StrEnum):
    CALLER = "caller"
    UPSTREAM = "upstream"
    US = "us"


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """One catalogue entry. `status` is the HTTP status of a request that fails directly.

    `max_attempts` is how often a job may meet this error before it fails; `alert`: a person must act on it.
    """

    code: str
    status: int
    blame: Blame
    raised_when: str
    max_attempts: int = 1
    alert: bool = False

    @property
    def retryable(self) -> bool:
        return self.max_attempts > 1


class PipelineError(Exception):
    """Base of the catalogue. `detail` is internal; `retry_after` (seconds) is the upstream's Retry-After.

    `spent` is the PaidCall that was charged although the call failed, if there was one.
    """

    spec: ClassVar[ErrorSpec]

    def __init__(self, detail: str = "", *, retry_after: float | None = None, spent: Any = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.spent = spent

    def __str__(self) -> str:
        return f"{self.spec.code}: {self.detail}" if self.detail else self.spec.code


class SourceUrlExpired(PipelineError):
    spec = ErrorSpec("source.url_expired", 422, Blame.CALLER, "a signed URL is past its time")


class SourceForbidden(PipelineError):
    spec = ErrorSpec(
        "source.forbidden",
        422,
        Blame.CALLER,
        "the origin answered a 4xx that has no code of its own, such as 401 or 403",
    )


class SourceNotFound(PipelineError):
    spec = ErrorSpec("source.not_found", 422, Blame.CALLER, "the origin answered 404 or 410, or there is no such host")


class SourceTooLarge(PipelineError):
    spec = ErrorSpec("source.too_large", 413, Blame.CALLER, "the image has too many bytes or pixels")


class SourceUnsupportedMedia(PipelineError):
    spec = ErrorSpec("source.unsupported_media", 415, Blame.CALLER, "the bytes are not an accepted image type")


class SourceCorruptImage(PipelineError):
    spec = ErrorSpec("source.corrupt_image", 422, Blame.CALLER, "the image cannot be decoded")


class SourceUrlUnsafe(PipelineError):
    spec = ErrorSpec(
        "source.url_unsafe",
        422,
        Blame.CALLER,
        "the scheme, port or address is not allowed: at submit, at connect or at a redirect",
    )


class SourceTimeout(PipelineError):
    spec = ErrorSpec(
        "source.timeout",
        504,
        Blame.UPSTREAM,
        "the origin took too long to connect, answer or finish, or answered 408",
        max_attempts=3,
    )


class SourceUnreachable(PipelineError):
    spec = ErrorSpec(
        "source.unreachable",
        502,
        Blame.UPSTREAM,
        "the connection was refused or cut, TLS failed, or the origin answered 5xx or 429",
        max_attempts=3,
    )


class ModelRateLimited(PipelineError):
    spec = ErrorSpec(
        "model.rate_limited", 503, Blame.UPSTREAM, "the model answered 429: too many calls", max_attempts=4
    )


class ModelTimeout(PipelineError):
    spec = ErrorSpec("model.timeout", 504, Blame.UPSTREAM, "the model did not answer in time", max_attempts=3)


class ModelRefused(PipelineError):
    spec = ErrorSpec("model.refused", 422, Blame.CALLER, "the model refused, or its content filter did")


class ModelBadOutput(PipelineError):
    spec = ErrorSpec(
        "model.bad_output", 502, Blame.UPSTREAM, "the model's output is not our schema, or was cut off", max_attempts=2
    )


class ModelUnavailable(PipelineError):
    spec = ErrorSpec(
        "model.unavailable", 503, Blame.UPSTREAM, "the model answered 5xx or the connection failed", max_attempts=3
    )


class ModelAccount(PipelineError):
    spec = ErrorSpec(
        "model.account", 500, Blame.US, "the model refused our key, quota or model name: 401, 403, 404", alert=True
    )


class ModelBudgetExhausted(PipelineError):
    spec = ErrorSpec(
        "model.budget_exhausted",
        503,
        Blame.US,
        "today's budget for hosted models is used up, and MODEL_BUDGET_EXCEEDED is refuse",
        alert=True,
    )


class RulesNoMatch(PipelineError):
    spec = ErrorSpec("rules.no_match", 422, Blame.US, "the waste was recognised but the rulebook has no rule for it")


class JobDeadlineExceeded(PipelineError):
    spec = ErrorSpec("job.deadline_exceeded", 504, Blame.US, "the job's own deadline passed")


class JobCancelled(PipelineError):
    spec = ErrorSpec("job.cancelled", 409, Blame.CALLER, "the client cancelled the job")


class JobWorkerLost(PipelineError):
    spec = ErrorSpec("job.worker_lost", 500, Blame.US, "the job crashed its worker too often", alert=True)


class Internal(PipelineError):
    spec = ErrorSpec("internal", 500, Blame.US, "anything unforeseen", alert=True)


CATALOGUE: dict[str, ErrorSpec] = {kind.spec.code: kind.spec for kind in PipelineError.__subclasses__()}
"""Code → spec, in the order of the definitions above."""
