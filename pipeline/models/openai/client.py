"""The OpenAI client: one call, and its failures as ours (decision 0004). The only importer of openai."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar, cast

import aiohttp
import httpx2
import openai
import orjson
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient
from pydantic import BaseModel, ValidationError

from kit.dates import retry_after
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
from pipeline.models import Gate, OpenGate
from pipeline.models.openai.http import MAX_CONNECTIONS, JsonPoster, OneShotBody, Reply
from pipeline.models.openai.responses import (
    CODE_KINDS,
    RequestTemplate,
    Response,
    Tokens,
    failure,
    last_response,
    parse_event,
    parse_response,
    text_of,
)
from pipeline.settings import PipelineSettings
from pipeline.types import PaidCall, Usage

CONNECT_SECONDS = 5.0

# Of a type that the SDK keeps to itself. Nothing is tried twice, so it need not make up a key for each call.
JSON: Any = {"headers": {"Content-Type": "application/json"}, "idempotency_key": "none"}

Events = AsyncStream[object]
"""Of plain JSON: the SDK's own types of events would cost more than all else it does."""

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
        self._wire = JsonPoster(
            f"{self._sdk.base_url}responses",
            _constant(self._sdk.default_headers, self._sdk.auth_headers),
            connect_timeout=CONNECT_SECONDS,
            max_bytes=settings.model_max_response_bytes,
        )

    async def ask(
        self, template: RequestTemplate, body: bytes | OneShotBody, *, reply: type[Parsed]
    ) -> tuple[Parsed, Usage]:
        """One call, at most `model_timeout` seconds in all, with a body of the template's.

        Raises `model.*` errors, Internal, or ModelPaused.
        """
        async with self._gate.call(template.model):
            return await self._ask(template, body, reply)

    async def stream(
        self,
        template: RequestTemplate,
        *content: dict[str, Any],
        temperature: float | None,
        on_delta: Callable[[str], Awaitable[None]],
    ) -> tuple[str, Usage]:
        """One call whose reply is prose: `hear` gets each piece of it as it comes. Limits and errors as of `ask`."""
        body = template.body(*content, temperature=temperature)
        async with self._gate.call(template.model), self._in_time():
            events = await self._sdk.post(
                "/responses", cast_to=object, content=body, options=JSON, stream=True, stream_cls=Events
            )
            async with events:
                response, heard = await _listen(events, on_delta)
            usage = self._usage(template, response)
            with _charging(template, usage):
                return text_of(response).decode() or heard, usage

    async def _ask(
        self, template: RequestTemplate, body: bytes | OneShotBody, reply: type[Parsed]
    ) -> tuple[Parsed, Usage]:
        async with self._in_time():
            answered = await self._wire.post(body)
            if answered.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise _status_error(self._wire.url, answered)
        parsed = parse_response(answered.body)
        usage = self._usage(template, parsed)
        with _charging(template, usage):
            return reply.model_validate_json(text_of(parsed)), usage

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Around a request: its limit, and its failures as ours."""
        try:
            # The SDK's own timeout starts again with every byte, so a slow drip would pass it.
            async with asyncio.timeout(self.settings.model_timeout):
                yield
        except TimeoutError as error:
            raise ModelTimeout("no whole reply in time") from error
        except (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
            raise translate(error) from error

    def _usage(self, template: RequestTemplate, response: Response) -> Usage:
        return (response.usage or Tokens()).usage(self.settings.prices.get(template.model))

    async def close(self) -> None:
        await self._sdk.close()
        await self._wire.close()

    async def _bound(self, response: httpx2.Response) -> None:
        """Called before the body is read: put a limit on it. Nobody asked for compression, so none is taken."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _TooLong(request=response.request)
        stream = cast("httpx2.AsyncByteStream", response.stream)
        response.stream = _BoundedStream(stream, self.settings.model_max_response_bytes, response.request)


def _constant(*headers: Mapping[str, Any]) -> dict[str, str]:
    """What the SDK would send with each request; it marks what it leaves out by objects of its own."""
    return {name: value for each in headers for name, value in each.items() if isinstance(value, str)}


def _status_error(url: str, reply: Reply) -> openai.APIStatusError:
    """As the SDK would raise it."""
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        body = None
    error = body.get("error", body) if isinstance(body, dict) else body
    response = httpx2.Response(reply.status, headers=[*reply.headers.items()], request=httpx2.Request("POST", url))
    return openai.APIStatusError(f"status {reply.status}", response=response, body=error)


async def _listen(events: Events, on_delta: Callable[[str], Awaitable[None]]) -> tuple[Response, str]:
    """To the end of the stream. Returns its last event's response, and what was heard."""
    if "json" in events.response.headers.get("Content-Type", ""):  # A server that knows no streams.
        return parse_response(await events.response.aread()), ""
    heard = []
    async for data in _parsed(events):
        event = parse_event(data)
        if event.type == "response.output_text.delta":
            heard.append(event.delta)
            await on_delta(event.delta)
        elif (response := last_response(event)) is not None:
            return response, "".join(heard)
    raise ModelUnavailable("the stream was cut off")


async def _parsed(events: Events) -> AsyncIterator[object]:
    """The SDK lets through what `json` says of an event that is none."""
    try:
        async for data in events:
            yield data
    except ValueError as error:
        raise ModelBadOutput(f"not an event: {type(error).__name__}") from error


@contextmanager
def _charging(template: RequestTemplate, usage: Usage) -> Iterator[None]:
    """Around the reading of a reply: it was paid for, whatever it is worth."""
    spent = PaidCall(model=template.model, usage=usage)
    try:
        yield
    except ValidationError as error:
        raise ModelBadOutput(f"not our schema: {error.error_count()} mistakes", spent=spent) from error
    except UnicodeError as error:  # Half of a surrogate pair: JSON can say it, UTF-8 cannot.
        raise ModelBadOutput(f"not a text: {type(error).__name__}", spent=spent) from error
    except PipelineError as error:
        error.spent = spent
        raise


def translate(error: Exception) -> PipelineError:
    """An exception of the SDK, or of the transports below it, as an entry of our catalogue.

    The provider's message stays out: it may quote the user's text or part of the key.
    """
    if isinstance(error, openai.APIStatusError):
        return _by_status(error)
    if type(error) is openai.APIError:  # The SDK's word for an `error` event of a stream.
        return failure("failed", _code_of(error))
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
"""What is no answer of the server, by the nearest class; what is one is decided by its code and status."""

STATUS_KINDS: Mapping[int, type[PipelineError]] = {
    401: ModelAccount,
    402: ModelAccount,
    403: ModelAccount,
    404: ModelAccount,
    408: ModelTimeout,
    409: ModelUnavailable,
    429: ModelRateLimited,
}
"""Where the error's code does not say it."""


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
    status, code = error.status_code, _code_of(error)
    detail = f"upstream {status}, code {code[:60]!r}, param {error.param!s:.60}, request {error.request_id}"
    kind = CODE_KINDS.get(code) or STATUS_KINDS.get(status)
    if kind is None:
        kind = Internal if 400 <= status < 500 else ModelUnavailable  # noqa: PLR2004 - the client errors
    return kind(detail, retry_after=retry_after(error.response.headers, datetime.now(UTC)))


def _code_of(error: openai.APIError) -> str:
    """Some servers say it as the type alone."""
    return str(error.code or error.type or "")
