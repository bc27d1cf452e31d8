"""`BunriClient`: submit a photo's link, follow or await its job, cancel it; ask a question."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx
from httpx_sse import aconnect_sse

from client.models import ChatAnswer, Delivery, Event, Job, Pipeline, Submitted, Upload

LONG_POLL = 50.0
"""Seconds of one long poll; below the server's limit of 60."""

LONGEST_CHAT = 75.0
"""Timeout in seconds of a chat request; the server gives up after 60."""

ATTEMPTS = 4
PAUSE = 0.5
LONGEST_PAUSE = 60.0
"""Longest Retry-After, in seconds, that `submit` waits for; with a longer one it raises."""

WAIT_FAILURES = 8
"""Consecutive failures that `wait` tolerates, with growing pauses: about 18 s, enough for a restart of the API."""


class ApiProblem(Exception):
    """The API answered with a problem. `code` is one of /api/v1/errors; `retry_after` is in seconds."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: float | None) -> None:
        self.status = status
        self.code = str(body.get("code", "internal"))
        self.title = str(body.get("title", f"HTTP {status}"))
        self.detail = str(body.get("detail", ""))
        self.retryable = bool(body.get("retryable", False))
        self.trace_id = body.get("trace_id")
        self.retry_after = retry_after
        super().__init__(f"{self.code}: {self.detail or self.title}")


class StreamLost(Exception):
    """The event stream was lost, and reconnecting failed. The job itself is not affected."""


class BunriClient:
    """Asynchronous client. Use it as a context manager; tasks may share it.

    Raises `httpx.TransportError` when the API cannot be reached.
    """

    def __init__(self, base_url: str, *, http_timeout: float = 10.0) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, timeout=http_timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def upload(self, photo: bytes, content_type: str) -> Upload:
        """Store a photo temporarily; scans refer to it by its key. Raises ApiProblem."""
        answer = await self._call("POST", "/api/v1/images/scan", json={"content_type": content_type})
        upload = Upload.model_validate_json(answer.content)
        stored = await self._http.put(upload.upload_url, content=photo, headers=upload.required_headers)
        if stored.is_error:
            raise _problem(stored)
        return upload

    async def submit(
        self,
        image_url: str | None = None,
        *,
        image_key: str | None = None,
        user_input: str = "",
        locale: str = "ko",
        model: str | None = None,
        priority: str = "interactive",
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
        cancel_after: str | None = None,
    ) -> Submitted:
        """Submit a link, or the key of an upload. Raises ApiProblem.

        Retries retryable problems and lost connections up to 4 times in all, after the API's Retry-After unless that is
        above a minute; the idempotency key makes it one job. `priority`: `interactive`, or `bulk` for work that can
        wait.
        """
        body = {
            "image_url": image_url,
            "image_key": image_key,
            "user_input": user_input,
            "locale": locale,
            "model": model,
            "priority": priority,
            "callback_url": callback_url,
        }
        headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
        if cancel_after is not None:
            headers["Cancel-After"] = cancel_after
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await self._call(
                    "POST", "/api/v1/scan", json=body | {"metadata": metadata or {}}, headers=headers
                )
                return Submitted.model_validate_json(answer.content)
            except ApiProblem as problem:
                if not problem.retryable or attempt == ATTEMPTS or (problem.retry_after or 0) > LONGEST_PAUSE:
                    raise
                await asyncio.sleep(problem.retry_after or PAUSE * attempt)
            except httpx.TransportError:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(PAUSE * attempt)
        raise AssertionError("the last attempt returns or raises")

    async def ask(
        self,
        message: str = "",
        *,
        image_url: str | None = None,
        image_key: str | None = None,
        locale: str = "ko",
        model: str | None = None,
    ) -> ChatAnswer:
        """Ask one question, with or without a photo, and wait for the answer. A failure is an answer with `error_code`.

        Raises ApiProblem when the request is invalid, or over the rate limit.
        """
        body = {
            "message": message,
            "image_url": image_url,
            "image_key": image_key,
            "locale": locale,
            "model": model,
        }
        answer = await self._call("POST", "/api/v1/chat/messages", json=body, timeout=LONGEST_CHAT)
        return ChatAnswer.model_validate_json(answer.content)

    async def job(self, job_id: str, *, wait: float = 0) -> Job:
        """The job as it is; with `wait`, once it has ended, or after that many seconds. Raises ApiProblem."""
        answer = await self._call("GET", f"/api/v1/scan/{job_id}", params={"wait": wait}, timeout=wait + 10)
        return Job.model_validate_json(answer.content)

    async def wait(self, job_id: str, *, at_most: float = 900.0) -> Job:
        """The job once it has ended, or as it is after `at_most` seconds. Retries temporary failures."""
        end = time.monotonic() + at_most
        failures = 0
        while True:
            left = max(end - time.monotonic(), 0.0)
            try:
                job = await self.job(job_id, wait=min(LONG_POLL, left))
            except (ApiProblem, httpx.TransportError) as error:
                failures += 1
                if failures > WAIT_FAILURES or not getattr(error, "retryable", True):
                    raise
                await asyncio.sleep(PAUSE * failures)
                continue
            if job.status.is_final or left == 0:
                return job
            failures = 0

    async def cancel(self, job_id: str) -> Job:
        """Cancel the job; idempotent. Raises ApiProblem `job.finished` when it has already ended."""
        answer = await self._call("POST", f"/api/v1/scan/{job_id}/cancel")
        return Job.model_validate_json(answer.content)

    async def delivery(self, job_id: str) -> Delivery:
        """The state and the attempts of the job's webhook. Raises ApiProblem."""
        answer = await self._call("GET", f"/api/v1/scan/{job_id}/deliveries")
        return Delivery.model_validate_json(answer.content)

    async def resend(self, job_id: str) -> Delivery:
        """Deliver the job's webhook again, now. Raises ApiProblem `delivery.no_callback`."""
        answer = await self._call("POST", f"/api/v1/scan/{job_id}/deliveries")
        return Delivery.model_validate_json(answer.content)

    async def pipeline(self) -> Pipeline:
        """The versions of prompts and rules that the API and its workers use."""
        answer = await self._call("GET", "/api/v1/pipeline")
        return Pipeline.model_validate_json(answer.content)

    async def follow(self, job_id: str) -> AsyncIterator[Event]:
        """Each event once and in order, up to `done`. Resumes a lost stream; raises StreamLost after 4 failures."""
        last = 0
        failures = 0
        while failures < ATTEMPTS:
            try:
                async for event in self._stream(job_id, last):
                    yield event
                    last, failures = event.seq, 0
                    if event.stage == "done":
                        return
            except httpx.TransportError:
                pass  # The stream broke; it goes on after the last event that came.
            failures += 1
            await asyncio.sleep(PAUSE * failures)
        raise StreamLost(job_id)

    async def _stream(self, job_id: str, after: int) -> AsyncIterator[Event]:
        headers = {"Last-Event-ID": str(after)} if after else {}
        path = f"/api/v1/scan/{job_id}/events"
        # Keepalives come every 15 s; a stream without them is dead.
        async with aconnect_sse(self._http, "GET", path, headers=headers, timeout=40) as source:
            if source.response.is_error:
                await source.response.aread()
                raise _problem(source.response)
            async for message in source.aiter_sse():
                if not message.data:  # httpx-sse passes on a lone `retry:`, too.
                    continue
                yield Event.model_validate_json(message.data)

    async def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = await self._http.request(method, path, **options)
        if answer.is_error:
            raise _problem(answer)
        return answer


def _problem(answer: httpx.Response) -> ApiProblem:
    is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    wish = answer.headers.get("retry-after", "")
    return ApiProblem(answer.status_code, answer.json() if is_problem else {}, float(wish) if wish.isdigit() else None)
