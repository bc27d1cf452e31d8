"""Around each request: a trace id, a limit on its body, security headers, one log line, its metrics. Pure ASGI."""

import random
import re
import time
from collections.abc import Mapping

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import Problem, problem_response
from api.metrics import Metrics
from pipeline.errors import Internal
from pipeline.storage import UPLOADS_PATH

TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
CLIENT_GONE = 499
"""In logs and metrics only: the client disconnected before the answer."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger()


class Edge:
    """Wraps the whole application but CORS. The catch-all for unexpected exceptions is here."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        upload_origin: str | None,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._security_headers = _security_headers(upload_origin)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        headers = dict(scope["headers"])  # The last one of a repeated header counts.
        trace_id = _trace_id(headers)
        scope.setdefault("state", {})["trace_id"] = trace_id
        structlog.contextvars.bind_contextvars(trace_id=trace_id)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message, trace_id)
            await send(message)

        # An upload has a limit of its own.
        is_upload = scope["method"] == "PUT" and scope["path"].startswith(UPLOADS_PATH)
        bounded = receive if is_upload else _limited(receive, headers, self._max_body_bytes)
        try:
            await self._app(scope, bounded, send_with_headers)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:
            log.exception("request.broke")
            if status:
                raise  # Too late for another answer: the server cuts the connection.
            response = problem_response(Request(scope), Problem(Internal.spec.code))
            await response(scope, receive, send_with_headers)
        finally:
            self._record(scope, status, time.perf_counter() - started_at)

    def _add_headers(self, message: Message, trace_id: str) -> None:
        present = {name for name, _ in message["headers"]}
        added = ((b"x-trace-id", trace_id.encode()), *self._security_headers)
        message["headers"] = [*message["headers"], *(header for header in added if header[0] not in present)]

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        route = getattr(scope.get("route"), "path", "files" if "endpoint" in scope else "unmatched")
        self._metrics.observe_request(method, route, status, seconds)
        log.info("request.answered", method=method, route=route, status=status, ms=round(seconds * 1000, 1))


def _security_headers(upload_origin: str | None) -> tuple[tuple[bytes, bytes], ...]:
    """Images may come from anywhere, uploads may go to the store; no other origin, nothing inline."""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob: https: http:; "
        f"connect-src 'self' {upload_origin or ''}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", policy.replace(" ;", ";").encode()),
    )


def _limited(receive: Receive, headers: Mapping[bytes, bytes], max_bytes: int) -> Receive:
    """Raises HTTPException 413: before the first byte if Content-Length says so, else once the limit is passed."""
    content_length = headers.get(b"content-length", b"")
    announced = int(content_length) if content_length.isdigit() else 0
    received = 0

    async def limited() -> Message:
        nonlocal received
        if announced > max_bytes:
            raise HTTPException(413)
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise HTTPException(413)
        return message

    return limited


def _trace_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's traceparent or X-Request-ID, so that both sides' logs can be joined; else a new id."""
    if traced := TRACEPARENT.fullmatch(headers.get(b"traceparent", b"")):
        return traced[1].decode()
    if REQUEST_ID.fullmatch(request_id := headers.get(b"x-request-id", b"")):
        return request_id.decode()
    return f"{random.getrandbits(128):032x}"
