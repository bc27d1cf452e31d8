"""Problem details (RFC 9457) for every refusal: the catalogue's code, the caller's language, no internal detail."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.http.responses import json_response
from jobs.errors import IdempotencyMismatch, LedgerUnavailable, QueueUnavailable
from pipeline.errors import CATALOGUE, Blame, ErrorSpec, PipelineError
from pipeline.knowledge.knowledge import Knowledge
from pipeline.knowledge.watch import Watch
from pipeline.storage import LinkExpired, LinkRefused
from pipeline.types import Locale

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER_SECONDS = 5
"""Retry-After when the queue cannot be reached, or its pace is not known."""


def _spec(code: str, status: int, raised_when: str, *, max_attempts: int = 1, blame: Blame = Blame.CALLER) -> ErrorSpec:
    return ErrorSpec(code, status, blame, raised_when, max_attempts)


API_CATALOGUE: dict[str, ErrorSpec] = {
    spec.code: spec
    for spec in (
        _spec("request.invalid", 422, "a field, header or parameter is missing or malformed"),
        _spec("request.too_large", 413, "the request body is too long"),
        _spec("http.not_found", 404, "there is no such path"),
        _spec("http.method_not_allowed", 405, "the path does not take this method"),
        _spec("upload.expired", 410, "the link to upload or read a photo is past its time"),
        _spec("upload.refused", 404, "the link to upload or read a photo is not one of ours"),
        _spec("job.not_found", 404, "there is no such job"),
        _spec("job.expired", 410, "the job's record has passed its time to live"),
        _spec("job.finished", 409, "a finished job cannot be cancelled"),
        _spec(
            "job.unfinished",
            504,
            "a repeat has waited in vain for the first request's job, which goes on",
            max_attempts=2,
            blame=Blame.US,
        ),
        _spec("delivery.no_callback", 409, "a job without a callback_url cannot be delivered"),
        _spec("idempotency.mismatch", 409, "the Idempotency-Key came before with another request"),
        _spec("request.rate_limited", 429, "the caller submits faster than it may", max_attempts=2),
        _spec(
            "queue.saturated",
            503,
            "too many jobs wait, or the job's own deadline would pass while it waits",
            max_attempts=2,
            blame=Blame.US,
        ),
        _spec(
            "queue.unavailable",
            503,
            "queue or ledger cannot be reached, or take nothing: Redis is down, full or read-only",
            max_attempts=2,
            blame=Blame.US,
        ),
    )
}
"""Codes of the API's own refusals; with `pipeline.errors.CATALOGUE` these are all codes."""

ALL_CODES = CATALOGUE | API_CATALOGUE

HTTP_CODES = {404: "http.not_found", 405: "http.method_not_allowed", 413: "request.too_large"}


class Problem(Exception):
    """Raise it in a route to answer with a problem. `fields` are added to the body: never secrets."""

    def __init__(self, code: str, *, headers: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(code)
        self.code = code
        self.headers = dict(headers or {})
        self.fields = fields


def invalid(field: str, reason: str) -> Problem:
    """`request.invalid` for a check of the route's own. `reason` is for developers and never quotes the request."""
    return Problem("request.invalid", errors=[{"field": field, "kind": "value_error", "reason": reason}])


def unavailable(code: str = "queue.unavailable") -> Problem:
    return Problem(code, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


REFUSALS = (
    Problem,
    PipelineError,
    IdempotencyMismatch,
    LedgerUnavailable,
    QueueUnavailable,
    LinkExpired,
    LinkRefused,
)
"""Exceptions that a route may raise on purpose."""


def as_problem(error: Exception) -> Problem:
    """Translate one of REFUSALS to a problem; its detail goes to the log."""
    match error:
        case Problem():
            return error
        case PipelineError():
            log.info("request.refused", code=error.spec.code, detail=error.detail)
            return Problem(error.spec.code)
        case IdempotencyMismatch():
            return Problem("idempotency.mismatch")
        case LinkExpired():
            return Problem("upload.expired")
        case LinkRefused():
            return Problem("upload.refused")
        case _:
            log.warning("queue.unavailable", error=repr(error))
            return unavailable()


def locale_of(request: Request) -> Locale:
    """The caller's language: the body's, else the first supported one of Accept-Language, else Korean."""
    if (asked := getattr(request.state, "locale", None)) is not None:
        return Locale(asked)
    known = {str(locale): locale for locale in Locale}
    for part in request.headers.get("accept-language", "").split(","):
        language = part.partition(";")[0].strip()[:2].lower()
        if language in known:
            return known[language]
    return Locale.KO


def problem_response(request: Request, problem: Problem) -> Response:
    spec = ALL_CODES[problem.code]
    watch: Watch[Knowledge] = request.app.state.watch
    text = watch.knowledge.texts.error(spec.code, locale_of(request))
    body = {
        "type": f"/api/v1/errors#{spec.code}",
        "title": text.title,
        "status": spec.status,
        "detail": f"{text.message} {text.advice}",
        "code": spec.code,
        "retryable": spec.retryable,
        "trace_id": request.state.trace_id,
    }
    return json_response(body | problem.fields, status=spec.status, headers=problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """The one place where exceptions of routes become problems. The outermost middleware catches unexpected ones."""

    async def on_refusal(request: Request, error: Exception) -> Response:
        return problem_response(request, as_problem(error))

    async def on_invalid(request: Request, error: Exception) -> Response:
        """Names the wrong fields and the rule, never their values: an image URL's query is a credential."""
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
        return problem_response(request, Problem("request.invalid", errors=[_mistake(each) for each in error.errors()]))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
        if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI's status for a body that cannot be parsed.
            return problem_response(request, invalid("body", "It cannot be read as JSON"))
        code = HTTP_CODES.get(error.status_code, "request.invalid")
        return problem_response(request, Problem(code, headers=error.headers))

    for kind in REFUSALS:
        app.add_exception_handler(kind, on_refusal)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)


def _mistake(error: Mapping[str, Any]) -> dict[str, str]:
    """The location is cut to two parts: deeper ones are keys that the caller chose."""
    field = ".".join(str(part) for part in error["loc"][:2])
    return {"field": field, "kind": str(error["type"]), "reason": str(error["msg"])}
