"""Translates the errors that a server reports into our catalogue.

The server's message stays out: it may quote the user's text or part of the key.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson

from kit.dates import retry_after
from pipeline.errors import (
    Internal,
    ModelAccount,
    ModelRateLimited,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    PipelineError,
)

CODE_KINDS: Mapping[str, type[PipelineError]] = {
    "rate_limit_exceeded": ModelRateLimited,
    "insufficient_quota": ModelAccount,
    "billing_hard_limit_reached": ModelAccount,
    "access_terminated": ModelAccount,
    "model_not_found": ModelAccount,
    "content_filter": ModelRefused,
    "content_policy_violation": ModelRefused,
    "image_content_policy_violation": ModelRefused,
    "invalid_prompt": ModelRefused,
    "bio_policy": ModelRefused,
    "misalignment_policy_violation": ModelRefused,
}
"""By the code of an error, wherever it stands: in a reply with an error status, a response that failed (openai 3.57,
ResponseError), or an event of a stream.
"""

STATUS_KINDS: Mapping[int, type[PipelineError]] = {
    401: ModelAccount,
    402: ModelAccount,
    403: ModelAccount,
    404: ModelAccount,
    408: ModelTimeout,
    409: ModelUnavailable,
    429: ModelRateLimited,
}
"""By the status of a reply whose error has none of these codes."""


def status_error(status: int, headers: Mapping[str, str], body: bytes) -> PipelineError:
    """For a reply whose status is 300 or above. Other 4xx are Internal: a request that this server does not take."""
    error = _error_in(body)
    code = code_of(error)
    request_id = headers.get("x-request-id")
    detail = f"upstream {status}, code {code[:60]!r}, param {error.get('param')!s:.60}, request {request_id}"
    kind = CODE_KINDS.get(code) or STATUS_KINDS.get(status)
    if kind is None:
        is_client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        kind = Internal if is_client_error else ModelUnavailable
    return kind(detail, retry_after=retry_after(headers, datetime.now(UTC)))


def failure(status: str, code: str | None) -> PipelineError:
    """For a response that is not whole, or an `error` event. Codes like `invalid_image…` are our own mistakes."""
    detail = f"the response is {status}: {code!s:.60}"
    if (kind := CODE_KINDS.get(code or "")) is not None:
        return kind(detail)
    if code is not None and "image" in code:
        return Internal(detail)
    return ModelUnavailable(detail)


def code_of(error: Any) -> str:  # JSON of a server's own making
    """Some servers have the code in `type` alone, and some write a number."""
    return str(error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""


def _error_in(body: bytes) -> dict[str, Any]:
    """The error object of a reply, which some servers do not wrap; empty if there is none."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = fields.get("error", fields) if isinstance(fields, dict) else fields
    return error if isinstance(error, dict) else {}
