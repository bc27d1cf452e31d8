"""Injections through real processes: data on the way to the model, text on the way back, and nothing in the logs.

The model echoes what it was asked, as it was before it was cleaned: the worst that it could say.
"""

import asyncio
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest

from kit.text import clean, one_line
from tests.support.bunri import RunningBunri, running_bunri
from tests.support.image_server import Answer, ImageServer, Request, reply
from tests.support.injections import INJECTIONS, SHORT, Injection
from tests.support.openai_server import READ, SEEN, base_url, completed, openai_server, purpose_of, streamed

CHAT = "/api/v1/chat/messages"
SCAN = "/api/v1/scan"
PHOTO = "/glass.jpg"
MARK = "zzqy7731"
"""Ends each text, so that any trace of it can be found."""

RAW = {clean(f"{each.text} {MARK}").strip(): f"{each.text} {MARK}" for each in SHORT}


def echo(request: Request) -> Answer:
    asked = orjson.loads(request.body)
    text = asked["input"][1]["content"][-1]["text"].split("\n", 1)[1]
    raw = RAW[orjson.loads(text)["user_text"].strip()]
    match purpose_of(request):
        case "vision":
            return completed(SEEN)
        case "question":
            return completed(READ | {"things": [READ["things"][0] | {"name": raw[:60]}]})
        case "chat":
            return streamed([raw[at : at + 40] for at in range(0, len(raw), 40)], pause=0.02)
        case _:
            return completed({"disposal_steps": [raw], "user_answer": raw})


@pytest.fixture(scope="module")
def model() -> Iterator[ImageServer]:
    with openai_server() as server:
        server.fallback = echo
        server.on(PHOTO, reply(200, (Path(__file__).parent.parent.parent / "samples/glass-1.jpg").read_bytes()))
        yield server


@pytest.fixture(scope="module")
def up(model: ImageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBunri]:
    env = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": base_url(model), "FETCH_ALLOW": "127.0.0.1"}
    env |= {"LOG_LEVEL": "DEBUG", "RESULT_CACHE_TTL": "0"}
    with running_bunri(tmp_path_factory.mktemp("up") / "data", env=env) as up:
        yield up


class Caller:
    """Asks for one injection at a time, some at once."""

    def __init__(self, up: RunningBunri, photo: str) -> None:
        self.client = httpx.AsyncClient(base_url=up.api, timeout=60, trust_env=False)
        self._photo = photo
        self._some = asyncio.Semaphore(4)

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        async with self._some:
            return await self.client.post(path, json=body, headers=headers)

    async def chat(self, injection: Injection) -> dict[str, Any]:
        reply = await self.post(CHAT, {"message": f"{injection.text} {MARK}"})
        assert reply.status_code == 201, reply.text
        body: dict[str, Any] = reply.json()
        assert body["error_code"] is None
        return body

    async def follow(self, injection: Injection) -> tuple[str, dict[str, Any]]:
        """The text that the tokens make, and the result."""
        body = {"message": f"{injection.text} {MARK}"}
        text, name = "", ""
        async with self._some:
            job = (await self.client.post(CHAT, json=body, headers={"Prefer": "respond-async"})).json()
            async with self.client.stream("GET", job["stream_url"]) as stream:
                async for line in stream.aiter_lines():
                    field, _, value = line.partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data" and name == "token":
                        token = json.loads(value)
                        text = token["text"] if token["restart"] else text + token["text"]
                    elif field == "data" and name == "done":
                        result: dict[str, Any] = json.loads(value)["result"]
        return text, result

    async def scan(self, injection: Injection) -> dict[str, Any]:
        text = f"{injection.text} {MARK}"
        body = {"image_url": self._photo, "user_input": text, "metadata": {f"{injection.id} \n": injection.text[:512]}}
        job = (await self.post(SCAN, body, Prefer="wait=60")).json()
        assert job["status"] == "completed", job
        assert list(job["metadata"].values()) == [injection.text[:512]]
        result: dict[str, Any] = job["result"]
        return result


@pytest.fixture
def caller(up: RunningBunri, model: ImageServer) -> Caller:
    return Caller(up, model.url(PHOTO))


async def test_the_words_of_a_model_are_escaped_once_in_a_chat(caller: Caller) -> None:
    bodies = await asyncio.gather(*(caller.chat(each) for each in SHORT))
    assert [body["user_answer"] for body in bodies] == [escape(clean(f"{each.text} {MARK}").strip()) for each in SHORT]


async def test_the_words_of_a_model_are_escaped_once_while_they_are_written(caller: Caller) -> None:
    ends = await asyncio.gather(*(caller.follow(each) for each in SHORT))
    assert len([text for text, _ in ends if text]) > len(SHORT) / 2  # Who comes late gets the result alone.
    for each, (text, result) in zip(SHORT, ends, strict=True):
        shown = escape(clean(f"{each.text} {MARK}").strip())
        assert text in {"", shown}
        assert result["final_answer"]["user_answer"] == shown
        assert result["classification_result"]["meta"]["user_input"] == escape(clean(f"{each.text} {MARK}".strip()))


async def test_the_words_of_a_model_are_escaped_once_in_a_scan(caller: Caller) -> None:
    results = await asyncio.gather(*(caller.scan(each) for each in SHORT))
    for each, result in zip(SHORT, results, strict=True):
        shown = escape(one_line(f"{each.text} {MARK}"))
        assert result["final_answer"]["user_answer"] == shown
        assert list(result["final_answer"]["disposal_steps"].values()) == [shown]


async def test_a_text_that_is_too_long_is_refused_and_not_quoted(caller: Caller) -> None:
    for each in INJECTIONS:
        if each not in SHORT:
            reply = await caller.post(CHAT, {"message": each.text})
            assert (reply.status_code, reply.json()["code"]) == (422, "request.invalid")
            assert each.text[:30] not in reply.text


async def test_each_request_has_one_system_message_and_one_users(caller: Caller, model: ImageServer) -> None:
    model.requests.clear()
    await asyncio.gather(*(caller.chat(each) for each in SHORT), *(caller.scan(each) for each in SHORT))
    requests = [request for request in model.requests if request.path != PHOTO]
    assert len(requests) == 4 * len(SHORT)
    heads: dict[str, set[bytes]] = {}
    for request in requests:
        assert [each["role"] for each in orjson.loads(request.body)["input"]] == ["system", "user"]
        heads.setdefault(purpose_of(request), set()).add(request.body.partition(b'{"role":"user"')[0])
    assert sorted((purpose, len(each)) for purpose, each in heads.items()) == [
        ("answer", 1),
        ("chat", 1),
        ("question", 1),
        ("vision", 1),
    ]


async def test_no_log_has_a_line_or_an_escape_or_a_word_of_the_users(caller: Caller, up: RunningBunri) -> None:
    logs = [log for log in (up.data_dir / "logs").iterdir() if log.name.startswith(("api", "worker"))]
    before = [log.stat().st_size for log in logs]
    for each in SHORT:
        await asyncio.gather(caller.chat(each), caller.scan(each))
        upload = {"filename": f"{each.text[:200]} {MARK}", "content_type": "image/jpeg", "metadata": {"a": each.text}}
        assert (await caller.post("/api/v1/images/chat", upload)).status_code == 200
        assert (await caller.post("/api/v1/images/chat", {"content_type": each.text[:100]})).status_code == 415
        await caller.client.get(f"{SCAN}/{quote(each.text[:200], safe='')}{MARK}?wait={quote(each.text[:200])}")
        await caller.post(CHAT, {"message": "?", "model": f"{each.text[:90]}{MARK}"})
    lines = [line for log, size in zip(logs, before, strict=True) for line in lines_of(log.read_bytes()[size:])]
    assert len(logs) == 2
    assert len(lines) > 4 * len(SHORT)
    assert [line for line in lines if not line.isprintable()] == []
    events = "\n".join(str(orjson.loads(line)) for line in lines)
    assert [each.id for each in SHORT if each.text in events or clean(each.text) in events] == []
    assert MARK not in events


def lines_of(log: bytes) -> list[str]:
    """As the most generous reader splits them."""
    return log.decode().splitlines()
