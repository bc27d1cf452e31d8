"""The Responses API: the bytes of a request; the text, tokens and failures of a reply. No SDK and no network here.

Everything constant comes first and is the same bytes in every call, so that the provider's prompt cache finds it.
"""

import json
import re
from base64 import b64encode
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ModelBadOutput, ModelRefused, ModelUnavailable, PipelineError
from pipeline.models.openai.errors import code_of, failure
from pipeline.models.provider import Content, DataBlock, Prompt
from pipeline.settings import ModelPrice, PipelineSettings
from pipeline.types import SourceImage, Usage

PATH = "responses"
"""Below the base URL."""

CACHE_BREAKPOINTS_SINCE = (5, 6)
"""Explicit prompt-cache breakpoints: "supported for gpt-5.6 and later models" (openai 3.57, PromptCacheOptions)."""


class RequestTemplate:
    """A prompt's requests: all but the last message, encoded once."""

    def __init__(self, settings: PipelineSettings, prompt: Prompt) -> None:
        self.model = prompt.model
        self._takes_temperature = settings.reasoning_effort == "off"  # Models that reason refuse the field.
        request: dict[str, Any] = {
            "model": prompt.model,
            "store": False,
            "max_output_tokens": settings.model_max_output_tokens,
        }
        if prompt.schema is None:
            request["stream"] = True
        else:
            request["text"] = {"format": _json_format(prompt.purpose, prompt.schema)}
        if settings.reasoning_effort != "off":
            request["reasoning"] = {"effort": settings.reasoning_effort}
        if settings.prompt_cache != "off":
            request["prompt_cache_key"] = f"bunri-{prompt.purpose}"
        self._has_breakpoints = settings.prompt_cache == "auto" and _has_breakpoints(prompt.model)
        if self._has_breakpoints:
            # Without this the photo would be written to the cache, too, at a higher price, and never read from it.
            request["prompt_cache_options"] = {"mode": "explicit"}
        request["input"] = [{"role": "system", "content": [self._text(prompt.system, is_cacheable=True)]}]
        self._head = orjson.dumps(request).removesuffix(b"]}")

    def body(self, *content: Content, temperature: float | None = None) -> bytes:
        """The whole request, with `content` as the user's message."""
        wish = b""
        if temperature is not None and self._takes_temperature:
            wish = b',"temperature":%b' % orjson.dumps(temperature)
        message = {"role": "user", "content": [self._part(each) for each in content]}
        return b"%b,%b]%b}" % (self._head, orjson.dumps(message), wish)

    def _part(self, content: Content) -> dict[str, Any]:
        match content:
            case DataBlock(text, is_cacheable):
                return self._text(text, is_cacheable=is_cacheable)
            case SourceImage():
                url = f"data:{content.media_type};base64,{b64encode(content.data).decode()}"
                return {"type": "input_image", "image_url": url, "detail": "auto"}

    def _text(self, text: str, *, is_cacheable: bool) -> dict[str, Any]:
        part: dict[str, Any] = {"type": "input_text", "text": text}
        if is_cacheable and self._has_breakpoints:
            part["prompt_cache_breakpoint"] = {"mode": "explicit"}
        return part


def _json_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "name": name, "strict": True, "schema": schema}


class _Loose(BaseModel):
    """Providers add fields; compatible servers leave some out."""

    model_config = ConfigDict(extra="ignore")


class _Content(_Loose):
    type: str
    text: str = ""


class _Item(_Loose):
    type: str
    content: list[_Content] | None = None


class _Reason(_Loose):
    reason: str | None = None


class _Failure(_Loose):
    code: str | None = None
    type: str | None = None


class _TokenDetails(_Loose):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class Tokens(_Loose):
    """As the provider counts them: `input_tokens` includes those read from and written to its cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _TokenDetails | None = None

    def usage(self, price: ModelPrice | None) -> Usage:
        """With the cost in US dollars; 0 without a price."""
        details = self.input_tokens_details or _TokenDetails()
        cost = 0.0
        if price is not None:
            fresh = max(self.input_tokens - details.cached_tokens - details.cache_write_tokens, 0)
            cost = (
                fresh * price.input
                + details.cached_tokens * price.cached
                + details.cache_write_tokens * price.cache_write
                + self.output_tokens * price.output
            ) / 1_000_000
        return Usage(
            input_tokens=self.input_tokens,
            cached_tokens=details.cached_tokens,
            output_tokens=self.output_tokens,
            cost_usd=round(cost, 8),
        )


class ModelResponse(_Loose):
    """The parts of a reply that we use."""

    status: str
    output: list[_Item]
    error: _Failure | None = None
    incomplete_details: _Reason | None = None
    usage: Tokens | None = None


class _StreamEvent(_Loose):
    """`code` is that of an `error` event, `response` comes with the last event."""

    type: str
    delta: str = ""
    code: str | None = None
    response: Any = None


def read_event(data: bytes) -> str | ModelResponse | None:
    """A piece of the text, the whole response, with which a stream ends, or None for an event that has neither.

    Raises ModelBadOutput for anything else, and `model.*` errors for an `error` event.
    """
    if data.startswith(b"[DONE]"):
        raise ModelUnavailable("the stream ended without a response")
    try:
        # Not orjson, which refuses half of a surrogate pair: such a text is bad output, but was paid for.
        fields = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ModelBadOutput(f"not an event: {type(error).__name__}") from error
    if isinstance(fields, dict) and (problem := fields.get("error")):
        raise failure("failed", code_of(problem))
    try:
        event = _StreamEvent.model_validate(fields)
    except ValidationError as error:
        raise ModelBadOutput(f"not an event: {error.error_count()} mistakes") from error
    match event.type:
        case "response.output_text.delta":
            return event.delta
        case "response.completed" | "response.incomplete" | "response.failed":
            return _last_response(event)
        case "error":
            raise failure("failed", event.code)
        case _:
            return None


def _last_response(event: _StreamEvent) -> ModelResponse:
    try:
        return ModelResponse.model_validate(event.response)
    except ValidationError as error:
        raise ModelBadOutput(f"not a response: {error.error_count()} mistakes") from error


def parse_response(body: bytes) -> ModelResponse:
    """Raises ModelBadOutput for anything else."""
    try:
        return ModelResponse.model_validate_json(body)
    except ValidationError as error:
        raise ModelBadOutput(f"not a response: {error.error_count()} mistakes in {len(body)} bytes") from error


def text_of(response: ModelResponse) -> str:
    """The reply's text. Raises `model.*` errors if there is none, or if it has half of a surrogate pair."""
    if response.error is not None or response.status not in {"completed", "incomplete"}:
        error = response.error or _Failure()
        raise failure(response.status, error.code or error.type)
    parts = [part for item in response.output if item.type == "message" for part in item.content or []]
    if any(part.type == "refusal" for part in parts):
        raise ModelRefused("the model refused")
    if response.status == "incomplete":
        raise _cut_off(response)
    text = "".join(part.text for part in parts if part.type == "output_text")
    try:
        text.encode()  # JSON can say half of a surrogate pair, UTF-8 cannot.
    except UnicodeError as error:
        raise ModelBadOutput(f"not a text: {type(error).__name__}") from error
    return text


def _has_breakpoints(model: str) -> bool:
    version = re.match(r"gpt-([0-9]+)(?:\.([0-9]+))?(?=-|$)", model)
    return version is not None and (int(version[1]), int(version[2] or 0)) >= CACHE_BREAKPOINTS_SINCE


def _cut_off(response: ModelResponse) -> PipelineError:
    reason = response.incomplete_details.reason if response.incomplete_details else None
    if reason == "content_filter":
        return ModelRefused("the content filter stopped the reply")
    return ModelBadOutput(f"the reply was cut off: {reason}")
