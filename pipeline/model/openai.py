"""The OpenAI client: one call, and its failures as ours (decision 0004). The only importer of openai."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import aiohttp
import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient
from pydantic import BaseModel, ValidationError

from pipeline.dates import retry_after
from pipeline.errors import (
    Internal,
    ModelAccount,
    ModelBadOutput,
    ModelRateLimited,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    PipelineError,
)
from pipeline.model import Gate, OpenGate
from pipeline.model.responses import RequestTemplate, Tokens, parse_response, text_of
from pipeline.settings import PipelineSettings
from pipeline.types import PaidCall, Usage

CONNECT_SECONDS = 5.0
MAX_CONNECTIONS = 4096
"""More than the jobs of one process: waiting here for a connection would look like a slow model."""

Parsed = TypeVar("Parsed", bound=BaseModel)


class OpenAIClient:
    """One per process, on one event loop: its connections are pooled. Never retries: that is the job's business."""

    def __init__(self, settings: PipelineSettings, gate: Gate | None = None) -> None:
        assert settings.openai_api_key is not None  # noqa: S101 - built with a key only
        self.settings = settings
        self._gate = gate or OpenGate()
        self._sdk = AsyncOpenAI(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            max_retries=0,
            http_client=DefaultAioHttpClient(
                timeout=httpx2.Timeout(settings.model_timeout, connect=CONNECT_SECONDS),
                limits=httpx2.Limits(max_connections=MAX_CONNECTIONS),
                follow_redirects=False,
                trust_env=False,
                headers={"Accept-Encoding": "identity"},
                event_hooks={"response": [self._bound]},
            ),
        )

    async def ask(
        self, template: RequestTemplate, *content: dict[str, Any], reply: type[Parsed]
    ) -> tuple[Parsed, Usage]:
        """One call, at most `model_timeout` seconds in all. Raises `model.*` errors, Internal, or ModelPaused."""
        async with self._gate.call(template.model):
            return await self._ask(template, template.body(*content), reply)

    async def _ask(self, template: RequestTemplate, body: bytes, reply: type[Parsed]) -> tuple[Parsed, Usage]:
        try:
            # The SDK's own timeout starts again with every byte, so a slow drip would pass it.
            async with asyncio.timeout(self.settings.model_timeout):
                response = await self._sdk.post(
                    "/responses",
                    cast_to=httpx2.Response,
                    content=body,
                    options={"headers": {"Content-Type": "application/json"}},
                )
        except TimeoutError as error:
            raise ModelTimeout("no whole reply in time") from error
        except (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
            raise translate(error) from error
        parsed = parse_response(response.content)
        usage = (parsed.usage or Tokens()).usage(self.settings.prices.get(template.model))
        spent = PaidCall(model=template.model, usage=usage)
        try:
            return reply.model_validate_json(text_of(parsed)), usage
        except ValidationError as error:
            raise ModelBadOutput(f"not our schema: {error.error_count()} mistakes", spent=spent) from error
        except PipelineError as error:
            error.spent = spent
            raise

    async def close(self) -> None:
        await self._sdk.close()

    async def _bound(self, response: httpx2.Response) -> None:
        """Called before the body is read: put a limit on it. Nobody asked for compression, so none is taken."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _TooLong(request=response.request)
        stream = cast("httpx2.AsyncByteStream", response.stream)
        response.stream = _BoundedStream(stream, self.settings.model_max_response_bytes, response.request)


def translate(error: Exception) -> PipelineError:
    """An exception of the SDK, or of the transports below it, as an entry of our catalogue.

    The provider's message stays out: it may quote the user's text or part of the key.
    """
    if isinstance(error, openai.APIStatusError):
        return _by_status(error)
    causes = _causes(error)
    if any(isinstance(cause, _TooLong) for cause in causes):
        return ModelBadOutput("the reply is too long, or compressed")
    detail = " ← ".join(type(cause).__name__ for cause in causes)
    # The SDK's aiohttp transport calls a refused or cut connection a timeout (openai 3.57, AIOHTTP_EXC_MAP).
    below = next((cause for cause in causes if isinstance(cause, aiohttp.ClientConnectionError)), None)
    if below is not None and not isinstance(below, TimeoutError):
        return ModelUnavailable(detail)
    return next(KINDS[each] for each in type(error).__mro__ if each in KINDS)(detail)


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and what it was raised from, down to the first."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return causes


KINDS: Mapping[type[BaseException], type[PipelineError]] = {
    openai.APITimeoutError: ModelTimeout,
    openai.APIConnectionError: ModelUnavailable,
    openai.APIResponseValidationError: ModelBadOutput,
    openai.APIError: ModelUnavailable,
    openai.LengthFinishReasonError: ModelBadOutput,
    openai.ContentFilterFinishReasonError: ModelRefused,
    openai.WebSocketConnectionClosedError: ModelUnavailable,
    openai.WebSocketQueueFullError: ModelUnavailable,
    openai.InvalidWebhookSignatureError: Internal,
    openai.OpenAIError: ModelAccount,  # as such, or by a private subclass, when credentials are missing
    httpx2.TimeoutException: ModelTimeout,
    Exception: ModelUnavailable,  # the transports' own
}
"""What is no answer of the server, by the nearest class; what is one is decided by its status."""

STATUS_KINDS: Mapping[int, type[PipelineError]] = {
    401: ModelAccount,
    402: ModelAccount,
    403: ModelAccount,
    404: ModelAccount,
    408: ModelTimeout,
    409: ModelUnavailable,
    429: ModelRateLimited,
}
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "access_terminated"})
REFUSAL_CODES = frozenset(
    {"content_filter", "content_policy_violation", "image_content_policy_violation", "invalid_prompt", "bio_policy"}
)


class _TooLong(httpx2.RequestError):
    """The body is longer than we read. A RequestError, so that the SDK closes the connection and passes it on."""

    def __init__(self, *, request: httpx2.Request) -> None:
        super().__init__("the body is too long", request=request)


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limit: int, request: httpx2.Request) -> None:
        self._stream = stream
        self._limit = limit
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > self._limit:
                raise _TooLong(request=self._request)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _by_status(error: openai.APIStatusError) -> PipelineError:
    """4xx that no retry mends and no caller can help is ours: a request that this server does not take."""
    status, code = error.status_code, str(error.code or error.type or "")
    detail = f"upstream {status}, code {code[:60]!r}, param {error.param!s:.60}, request {error.request_id}"
    if code in REFUSAL_CODES:
        return ModelRefused(detail)
    if code in QUOTA_CODES or code == "model_not_found":
        return ModelAccount(detail)
    kind = STATUS_KINDS.get(status)
    if kind is None:
        kind = Internal if 400 <= status < 500 else ModelUnavailable  # noqa: PLR2004 - the client errors
    return kind(detail, retry_after=retry_after(error.response.headers, datetime.now(UTC)))
