"""The OpenAI client: prompts of one server, over connections of our own (decisions 0004 and 0018). Only importer of the
SDK, which is asked for the address and the headers of each request, and never sends one.
"""

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from pipeline.errors import ModelUnavailable, PipelineError
from pipeline.models.openai.errors import status_error
from pipeline.models.openai.http import JsonPoster, OneShotBody, Reply
from pipeline.models.openai.responses import (
    PATH,
    ModelResponse,
    RequestTemplate,
    Tokens,
    parse_response,
    read_event,
    text_of,
)
from pipeline.models.openai.sse import EventDecoder
from pipeline.models.provider import Content, OnDelta, Prompt
from pipeline.settings import PipelineSettings
from pipeline.types import PaidCall, SourceImage, Usage


class OpenAIClient:
    """One per process, on one event loop: its connections are pooled. Never retries: that is the job's business."""

    def __init__(self, settings: PipelineSettings, api_key: str) -> None:
        self.settings = settings
        self._sdk = AsyncOpenAI(
            api_key=api_key,
            base_url=settings.openai_base_url,
            http_client=DefaultAsyncHttpxClient(trust_env=False),
        )
        self._poster = JsonPoster(
            f"{self._sdk.base_url}{PATH}",
            _constant(self._sdk.default_headers, self._sdk.auth_headers),
            total_seconds=settings.model_timeout,
            max_bytes=settings.model_max_response_bytes,
        )

    def prepare(self, prompt: Prompt) -> "OpenAIPrompt":
        return OpenAIPrompt(self, RequestTemplate(self.settings, prompt))

    async def ask(self, model: str, body: bytes | OneShotBody) -> tuple[str, Usage]:
        """One call with this body. Raises `model.*` errors or Internal."""
        async with self._post(body) as reply:
            received = await reply.read()
        response = parse_response(received)
        with self._charged(model, response) as usage:
            return text_of(response), usage

    async def stream(self, model: str, body: bytes, on_delta: OnDelta) -> tuple[str, Usage]:
        """As `ask`, with each piece of the text as it comes."""
        async with self._post(body) as reply:
            response, pieces = await _receive(reply, on_delta)
        with self._charged(model, response) as usage:
            return text_of(response) or pieces, usage

    async def close(self) -> None:
        await self._sdk.close()
        await self._poster.close()

    @asynccontextmanager
    async def _post(self, body: bytes | OneShotBody) -> AsyncIterator[Reply]:
        async with self._poster.post(body) as reply:
            if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise status_error(reply.status, reply.headers, await reply.read())
            yield reply

    @contextmanager
    def _charged(self, model: str, response: ModelResponse) -> Iterator[Usage]:
        """Around the reading of a response: it was paid for, whatever it is worth."""
        usage = (response.usage or Tokens()).usage(self.settings.prices.get(model))
        try:
            yield usage
        except PipelineError as error:
            error.spent = PaidCall(model=model, usage=usage)
            raise


class OpenAIPrompt:
    """A prompt whose constant part is encoded."""

    def __init__(self, client: OpenAIClient, template: RequestTemplate) -> None:
        self._client = client
        self._template = template

    def ask(self, *content: Content) -> Awaitable[tuple[str, Usage]]:
        """No coroutine of its own, which would keep the photo until the reply."""
        body = self._template.body(*content)
        has_photo = any(isinstance(each, SourceImage) for each in content)
        return self._client.ask(self._template.model, OneShotBody(body) if has_photo else body)

    def stream(self, *content: Content, temperature: float | None, on_delta: OnDelta) -> Awaitable[tuple[str, Usage]]:
        body = self._template.body(*content, temperature=temperature)
        return self._client.stream(self._template.model, body, on_delta)


def _constant(*headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers that the SDK sends with each request; it marks those that it leaves out by objects of its own."""
    return {name: value for each in headers for name, value in each.items() if isinstance(value, str)}


async def _receive(reply: Reply, on_delta: OnDelta) -> tuple[ModelResponse, str]:
    """Reads a stream to its last event. Returns that one's response, and the pieces before it."""
    if "json" in reply.headers.get("Content-Type", ""):  # A server that knows no streams.
        return parse_response(await reply.read()), ""
    decoder, pieces = EventDecoder(), []
    while chunk := await reply.next_chunk():
        for data in decoder.feed(chunk):
            match read_event(data):
                case str(piece):
                    pieces.append(piece)
                    await on_delta(piece)
                case ModelResponse() as response:
                    return response, "".join(pieces)
                case None:
                    pass
    raise ModelUnavailable("the stream was cut off")
