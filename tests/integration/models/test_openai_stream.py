"""Prose from a hosted model: the request, the pieces as they come, and how a stream goes wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from pipeline.errors import PipelineError
from pipeline.knowledge.insufficiency import Insufficiencies
from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.texts import Texts
from pipeline.models.hosted import MAX_PROSE, HostedAnswer
from pipeline.models.openai.client import OpenAIClient
from pipeline.rules import RuleMatcher
from pipeline.settings import RESOURCES, PipelineSettings
from pipeline.types import Answer as WrittenAnswer
from pipeline.types import AnswerForm, JobInput, Locale, NamedThing, Observation
from tests.support import image_server
from tests.support.image_server import Answer, ImageServer, reply
from tests.support.openai_server import (
    PROSE,
    base_url,
    completed,
    failed,
    openai_server,
    problem,
    response_body,
    sse,
    streamed,
)

TEXTS = Texts.load(RESOURCES)
RULEBOOK = Rulebook.load(RESOURCES)
RULES = RuleMatcher(RULEBOOK, Insufficiencies.load(RESOURCES, RULEBOOK, TEXTS))

BOTTLE = NamedThing(
    name="소주병", classification=RULEBOOK.classification("유리병", None), situation_tags=("라벨_있음",), confidence=0.9
)
QUESTION = Observation(
    classification=RULEBOOK.classification("전지", None),
    confidence=0.9,
    name="보조배터리",
    others=(BOTTLE,),
    model="gpt-test",
)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with openai_server() as server:
        yield server


def settings_for(server: ImageServer, **fields: Any) -> PipelineSettings:
    return PipelineSettings.model_validate(
        {
            "openai_api_key": "sk-test",
            "openai_base_url": base_url(server),
            "model_timeout": 3.0,
            "model_max_response_bytes": 200_000,
            **fields,
        }
    )


@pytest.fixture
async def client(server: ImageServer) -> AsyncIterator[OpenAIClient]:
    client = OpenAIClient(settings_for(server), "sk-test")
    yield client
    await client.close()


async def write(client: OpenAIClient, pieces: list[str] | None = None, **fields: Any) -> WrittenAnswer:
    async def on_delta(piece: str, *, restart: bool = False) -> None:
        assert not restart
        if pieces is not None:
            pieces.append(piece)

    job = JobInput.model_validate({"user_input": "보조배터리랑 소주병", "form": AnswerForm.PROSE, **fields})
    writer = HostedAnswer(client, client.settings.text_model, TEXTS)
    return await writer.write(QUESTION, RULES.match(QUESTION, Locale.KO), job, on_delta)


async def test_the_pieces_add_up_to_the_answer(client: OpenAIClient, server: ImageServer) -> None:
    pieces: list[str] = []
    answer = await write(client, pieces)
    assert answer.user_answer == "".join(pieces) == "".join(PROSE)
    assert len(pieces) == len(PROSE)
    assert answer.usage.output_tokens == 100
    assert answer.disposal_steps == tuple(RULES.match(QUESTION, Locale.KO).document["steps"])
    assert len(server.requests) == 1


async def test_a_stream_is_asked_for_with_every_things_rule_and_no_schema(
    client: OpenAIClient, server: ImageServer
) -> None:
    await write(client, temperature=0.2)
    request = orjson.loads(server.requests[0].body)
    assert (request["stream"], request["store"], "text" in request) == (True, False, False)
    rules, things = (orjson.loads(block["text"].partition("\n")[2]) for block in request["input"][1]["content"])
    assert list(rules["rules"]) == [RULEBOOK.middle(name).id for name in ("전지", "유리병")]
    assert not any("source" in rule for rule in rules["rules"].values())
    assert [thing["name"] for thing in things["things"]] == ["보조배터리", "소주병"]
    assert things["things"][1]["insufficiencies"] == ["label_on"]


@pytest.mark.parametrize(("effort", "sent"), [("low", None), ("off", 0.2)])
async def test_the_temperature_goes_only_to_models_that_take_one(
    server: ImageServer, effort: str, sent: float | None
) -> None:
    client = OpenAIClient(settings_for(server, reasoning_effort=effort), "sk-test")
    await write(client, temperature=0.2)
    await client.close()
    request = orjson.loads(server.requests[0].body)
    assert request.get("temperature") == sent


async def test_control_characters_and_outer_blanks_are_in_no_piece(client: OpenAIClient, server: ImageServer) -> None:
    server.fallback = lambda _request: streamed(["\n ", "유리\x00", "병\u202e은 ", "\n", "비워요", " \n"])
    pieces: list[str] = []
    answer = await write(client, pieces)
    assert answer.user_answer == "".join(pieces) == "유리 병은 \n비워요"


async def test_a_server_that_knows_no_streams_is_understood(client: OpenAIClient, server: ImageServer) -> None:
    server.fallback = lambda _request: completed("유리병이에요.")
    assert (await write(client)).user_answer == "유리병이에요."


async def test_a_model_that_says_more_in_the_end_is_believed(client: OpenAIClient, server: ImageServer) -> None:
    whole = [{"type": "message", "content": [{"type": "output_text", "text": "처음부터 끝까지."}]}]
    server.fallback = lambda _request: streamed(["처음부터"], output=whole)
    assert (await write(client)).user_answer == "처음부터 끝까지."


def events(body: bytes) -> Answer:
    return reply(200, body, Content_Type="text/event-stream")


def stopped(reason: str) -> Answer:
    return streamed(["반쪽 "], last="incomplete", incomplete_details={"reason": reason})


HALF = "유리병 \ud83d"
"""Its last letter is half of a surrogate pair."""

REFUSAL = [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(401, "invalid_api_key"), "model.account"),
        (problem(429, "rate_limit_exceeded"), "model.rate_limited"),
        (problem(500), "model.unavailable"),
        (failed("server_error"), "model.unavailable"),
        (streamed(["반쪽 "], last=None), "model.unavailable"),
        (streamed([], last="failed", error={"code": "rate_limit_exceeded"}), "model.rate_limited"),
        (streamed(["반쪽 "], last="failed", error={"code": "server_error"}), "model.unavailable"),
        (streamed(["반쪽 "], last="failed", error={"code": "insufficient_quota"}), "model.account"),
        (streamed(["반쪽 "], last="failed", error={"code": "content_filter"}), "model.refused"),
        (
            streamed(["반쪽 "], last="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            "model.bad_output",
        ),
        (streamed(["반쪽 "], last="incomplete", incomplete_details={"reason": "content_filter"}), "model.refused"),
        (streamed([], output=REFUSAL), "model.refused"),
        (streamed([" ", "\n"]), "model.bad_output"),
        (streamed(["가" * (MAX_PROSE + 1)]), "model.bad_output"),
        (streamed(["가 "] * 100, pause=0.05), "model.timeout"),
        (streamed(["가" * 70_000]), "model.bad_output"),
        (
            reply(200, sse("error", code="server_error", message="x"), Content_Type="text/event-stream"),
            "model.unavailable",
        ),
        (reply(200, sse("error", code="rate_limit_exceeded"), Content_Type="text/event-stream"), "model.rate_limited"),
        (events(sse("error", code="insufficient_quota")), "model.account"),
        (events(sse("error", code="content_policy_violation")), "model.refused"),
        (events(sse("error", error={"code": "insufficient_quota"})), "model.account"),
        (events(sse("error", error={"code": None, "type": "insufficient_quota"})), "model.account"),
        (events(sse("error", error={"code": "content_filter", "message": "x"})), "model.refused"),
        (events(sse("error", error={"code": "rate_limit_exceeded"})), "model.rate_limited"),
        (events(sse("error", error={"message": "x"})), "model.unavailable"),
        (events(b'data: {"error": {"code": 429}}\n\n'), "model.unavailable"),
        (events(b'data: {"error": "insufficient_quota"}\n\n'), "model.unavailable"),
        (events(b"data: [DONE]\n\n"), "model.unavailable"),
        (reply(200, b"data: {no json\n\n", Content_Type="text/event-stream"), "model.bad_output"),
        (reply(200, b"data: [1, 2]\n\n", Content_Type="text/event-stream"), "model.bad_output"),
        (events(b"data: " + b"[" * 100_000 + b"\n\n"), "model.bad_output"),
        (events(b'data: "\xff"\n\n'), "model.bad_output"),
        (reply(200, b"data: {}\n\n", Content_Type="text/event-stream"), "model.bad_output"),
        (reply(200, b"", Content_Type="text/event-stream"), "model.unavailable"),
        (image_server.silence(), "model.timeout"),
        (image_server.silence(headers=True), "model.timeout"),
        (image_server.drip(b": " * 100, every=0.1), "model.timeout"),
        (image_server.reset(), "model.unavailable"),
        (image_server.cut(sse("response.created") * 9, at=200), "model.unavailable"),
        (image_server.compressed(b": " * 5_000_000), "model.bad_output"),
        (reply(302, Location="http://127.0.0.1:1/elsewhere"), "model.unavailable"),
        (image_server.endless(b": keepalive\n\n" * 100), "model.bad_output"),
    ],
)
async def test_each_failure_has_its_entry_in_the_catalogue(
    client: OpenAIClient, server: ImageServer, answer: Answer, code: str
) -> None:
    server.fallback = lambda _request: answer
    with pytest.raises(PipelineError) as refused:
        await write(client)
    assert refused.value.spec.code == code
    assert len(server.requests) == 1


async def test_what_was_paid_for_in_vain_is_known(client: OpenAIClient, server: ImageServer) -> None:
    server.fallback = lambda _request: streamed([" "])
    with pytest.raises(PipelineError) as refused:
        await write(client)
    assert refused.value.spent is not None
    assert refused.value.spent.usage.output_tokens == 100


async def test_a_text_that_is_no_unicode_is_bad_output_and_paid_for(client: OpenAIClient, server: ImageServer) -> None:
    last = {
        "type": "response.completed",
        "response": response_body("completed", [{"type": "output_text", "text": HALF}]),
    }
    server.fallback = lambda _request: events(f"data: {json.dumps(last)}\n\n".encode())
    with pytest.raises(PipelineError) as refused:
        await write(client)
    assert refused.value.spec.code == "model.bad_output"
    assert refused.value.spent is not None
    assert refused.value.spent.usage.output_tokens == 100


async def test_the_pieces_do_not_depend_on_how_the_network_cuts_them(client: OpenAIClient, server: ImageServer) -> None:
    body = b": hello\r\n\r\nevent: ping\n\n"
    body += b"".join(sse("response.output_text.delta", delta=each).replace(b"\n", b"\r\n") for each in PROSE)
    body += sse("response.completed", response=response_body("completed", []))

    async def byte_by_byte(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for start in range(len(body)):
            writer.write(body[start : start + 1])
            await writer.drain()
        writer.close()

    server.fallback = lambda _request: byte_by_byte
    pieces: list[str] = []
    assert (await write(client, pieces)).user_answer == "".join(PROSE)
    assert pieces == [PROSE[0].rstrip(), " " + PROSE[1].rstrip(), " " + PROSE[2]]


async def test_a_cancelled_stream_leaves_the_client_usable(client: OpenAIClient, server: ImageServer) -> None:
    server.fallback = lambda _request: streamed(["가 "] * 100, pause=0.1)
    pieces: list[str] = []
    call = asyncio.ensure_future(write(client, pieces))
    while not pieces:  # noqa: ASYNC110 - the server runs on a thread of its own
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    server.fallback = lambda _request: streamed(PROSE)
    assert (await write(client)).user_answer == "".join(PROSE)
