"""Chat through the API and a real worker: each question by itself, streamed answers, typed failures."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, cast

import httpx
import orjson
import pytest

from jobs.ledger.ledger import Ledger
from jobs.redis.keys import PERMANENT_KEYS
from jobs.settings import JobsSettings
from pipeline.knowledge.texts import Texts
from pipeline.settings import RESOURCES, PipelineSettings
from pipeline.types import Locale
from tests.support.api_server import ApiServer, running_api
from tests.support.image_server import Answer, ImageServer, Request, image_server, reply
from tests.support.openai_server import (
    PROSE,
    READ,
    completed,
    incomplete,
    openai_server,
    problem,
    purpose_of,
    refusal,
    streamed,
    well_behaved,
)
from tests.support.redis_server import RedisServer, start_redis
from tests.support.wait import eventually
from tests.support.worker import at_rest, worker_process

CHAT = "/api/v1/chat"
NO_STORE = {
    "S3_BUCKET": "gone",
    "S3_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}
SECRET = "zzqy-7731"

Event = tuple[str, dict[str, Any]]


@pytest.fixture
def photo(samples: Path) -> Iterator[str]:
    with image_server() as origin:
        yield origin.on("/glass.jpg", reply(200, (samples / "glass-1.jpg").read_bytes()))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Of the shared worker alone."""
    server = start_redis(tmp_path_factory.mktemp("shared"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _serving(redis_server: RedisServer) -> Iterator[ImageServer]:
    """The worker's upload store is down all the time."""
    with openai_server() as model, worker_process(redis_server.url, model, concurrency=32, **NO_STORE):
        yield model


@pytest.fixture(autouse=True)  # Each test of this file may be the first, and needs the worker.
def model(_serving: ImageServer, redis_url: str) -> Iterator[ImageServer]:
    yield from at_rest(_serving, redis_url)


@pytest.fixture
async def api(jobs_settings: JobsSettings) -> AsyncIterator[ApiServer]:
    local = PipelineSettings.model_validate({"fetch_allow": "127.0.0.1"})
    async with running_api(jobs_settings, pipeline=local) as api:
        yield api


async def ask(api: ApiServer, message: str = "", **fields: Any) -> httpx.Response:
    return await api.client.post(f"{CHAT}/messages", json={"message": message, **fields})


async def answered(api: ApiServer, message: str = "", **fields: Any) -> dict[str, Any]:
    reply = await ask(api, message, **fields)
    assert reply.status_code == 201, reply.text
    body: dict[str, Any] = reply.json()
    assert set(body) == {"user_answer", "error_code", "job_id", "degraded"}
    return body


async def taken(api: ApiServer, message: str = "", **fields: Any) -> dict[str, Any]:
    headers = {"Prefer": "respond-async"}
    reply = await api.client.post(f"{CHAT}/messages", json={"message": message, **fields}, headers=headers)
    assert reply.status_code == 202, reply.text
    body: dict[str, Any] = reply.json()
    return body


async def events(api: ApiServer, url: str, after: str | None = None) -> AsyncGenerator[Event, None]:
    headers = {"Last-Event-ID": after} if after else {}
    async with api.client.stream("GET", url, headers=headers) as stream:
        name = ""
        async for line in stream.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def writing(words: Iterable[str], pause: float = 0.1) -> Callable[[Request], Answer]:
    """A model that is well-behaved, and answers with these words."""

    def answer(request: Request) -> Answer:
        return streamed(words, pause=pause) if purpose_of(request) == "chat" else well_behaved(request)

    return answer


def text_of(told: list[dict[str, Any]]) -> str:
    """What a client shows after these tokens."""
    text = ""
    for token in told:
        text = token["text"] if token["restart"] else text + token["text"]
    return text


# --- the contract ---


async def test_a_question_in_words_is_read_ruled_and_answered(api: ApiServer, model: ImageServer) -> None:
    body = await answered(api, "유리병은 어떻게 버려요?", image_url=None, temperature=0.2)
    assert body["error_code"] is None
    assert body["degraded"] is False
    assert body["user_answer"] == "".join(PROSE)
    assert [purpose_of(request) for request in model.requests] == ["question", "chat"]


async def test_a_photo_without_a_message_is_looked_at(api: ApiServer, model: ImageServer, photo: str) -> None:
    body = await answered(api, "", image_url=photo)
    assert body["error_code"] is None
    assert [purpose_of(request) for request in model.requests] == ["vision", "chat"]


async def test_the_local_model_answers_without_a_call(api: ApiServer, model: ImageServer) -> None:
    body = await answered(api, "깨진 유리컵이랑 라벨 붙은 소주병", model="local")
    job = (await api.client.get(f"{CHAT}/{body['job_id']}")).json()
    assert (body["error_code"], body["degraded"], job["model"]) == (None, False, "local/words")
    assert model.requests == []
    seen = job["result"]["classification_result"]
    assert seen["classification"]["middle_category"] == "불연성종량제폐기물"
    [other] = job["result"]["others"]
    assert other["classification"]["middle_category"] == "유리병"
    assert other["situation_tags"] == ["라벨_있음"]
    assert "유리병" in body["user_answer"]
    assert "유리컵" in body["user_answer"]


@pytest.mark.parametrize("message", ["오늘 날씨 어때?", "짐볼링기 어떻게 버려요?"])
async def test_what_is_no_waste_or_unknown_is_an_answer_and_no_error(
    api: ApiServer, model: ImageServer, message: str
) -> None:
    body = await answered(api, message, model="local")
    assert body["error_code"] is None
    model.fallback = lambda _request: completed(READ | {"is_about_waste": "날씨" not in message, "things": []})
    body = await answered(api, message)
    assert body["error_code"] is None
    assert len(model.requests) == 1  # Nothing is to be written about it.


async def test_a_thing_that_nobody_knows_is_told_of_after_the_known_ones(api: ApiServer, model: ImageServer) -> None:
    unknown = READ["things"][0] | {"name": "짐볼링기", "middle_category": "미분류", "situation_tags": []}
    asked = "유리병이랑 짐볼링기는 어떻게 버려요?"

    def answer(request: Request) -> Answer:
        is_reading = purpose_of(request) == "question"
        return completed(READ | {"things": [*READ["things"], unknown]}) if is_reading else writing(PROSE)(request)

    model.fallback = answer
    job = await taken(api, asked)
    seen = [each async for each in events(api, job["stream_url"])]
    told = [data for name, data in seen if name == "token"]
    final = seen[-1][1]["result"]["final_answer"]["user_answer"]
    also_unknown = escape(Texts.load(RESOURCES).message("chat.also_unknown", Locale.KO))
    assert final == f"{''.join(PROSE)}\n{also_unknown}"
    assert text_of(told) == final
    assert [token["restart"] for token in told].count(True) == 1
    assert seen[-1][1]["result"]["others"] == []
    assert (await answered(api, asked))["user_answer"] == final
    local = await answered(api, asked, model="local")
    assert local["user_answer"].endswith(also_unknown)
    assert "짐볼링기" not in local["user_answer"]


async def test_a_job_that_is_preferred_async_is_followed_to_its_end(api: ApiServer, model: ImageServer) -> None:
    model.fallback = writing(PROSE)
    job = await taken(api, "유리병")
    assert job["status_url"] == f"{CHAT}/{job['job_id']}"
    seen = [each async for each in events(api, job["stream_url"])]
    steps = [(name, data["status"]) for name, data in seen if name != "token"]
    assert steps == [
        ("queued", "completed"),
        ("fetch", "skipped"),
        ("vision", "started"),
        ("vision", "completed"),
        ("rule", "started"),
        ("rule", "completed"),
        ("answer", "started"),
        ("answer", "completed"),
        ("reward", "skipped"),
        ("done", "completed"),
    ]
    assert text_of([data for name, data in seen if name == "token"]) == "".join(PROSE)
    result = (await api.client.get(job["result_url"])).json()
    assert result["pipeline_result"]["final_answer"]["user_answer"] == "".join(PROSE)
    assert len(model.requests) == 2


async def test_a_chat_is_no_scan(api: ApiServer, model: ImageServer) -> None:
    del model
    body = await answered(api, "유리병", model="local")
    assert (await api.client.get(f"/api/v1/scan/{body['job_id']}")).status_code == 404
    assert (await api.client.get(f"{CHAT}/{body['job_id']}")).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"message": ""},
        {"message": "   "},
        {"message": "\u200b\u202e"},
        {"message": None},
        {"message": "가" * 2001},
        {"message": "x", "temperature": 3},
        {"message": "x", "image_url": "https://a.example/", "image_key": "chat/2026/11/x.jpg"},
    ],
)
async def test_a_request_that_is_wrong_is_refused(api: ApiServer, model: ImageServer, fields: dict[str, Any]) -> None:
    del model
    reply = await api.client.post(f"{CHAT}/messages", json=fields)
    assert (reply.status_code, reply.json()["code"]) == (422, "request.invalid")


async def test_a_model_that_no_worker_has_is_refused(api: ApiServer, model: ImageServer) -> None:
    del model
    await eventually(lambda: _has_models(api))
    reply = await ask(api, "유리병", model="no-such-model")
    assert (reply.status_code, reply.json()["code"]) == (422, "request.invalid")


async def _has_models(api: ApiServer) -> bool:
    return bool(await api.services.models())


# --- streams ---


async def test_tokens_come_while_the_model_writes(api: ApiServer, model: ImageServer) -> None:
    words = [f"낱말{n} " for n in range(30)]
    model.fallback = writing(words, pause=0.05)
    job = await taken(api, "유리병")
    seen = [each async for each in events(api, job["stream_url"])]
    told = [data for name, data in seen if name == "token"]
    assert len(told) > 5
    assert told[0]["restart"]
    assert not any(token["restart"] for token in told[1:])
    assert text_of(told) == "".join(words).strip() == seen[-1][1]["result"]["final_answer"]["user_answer"]


async def test_whoever_comes_back_gets_the_text_so_far_and_the_rest(api: ApiServer, model: ImageServer) -> None:
    words = [f"낱말{n} " for n in range(40)]
    model.fallback = writing(words, pause=0.05)
    job = await taken(api, "유리병")
    last = "0"
    stream = events(api, job["stream_url"])
    async for name, data in stream:
        if name == "token" and "낱말5" in data["text"]:
            break
        last = str(data.get("seq", last))
    await stream.aclose()
    seen = [each async for each in events(api, job["stream_url"], after=last)]
    told = [data for name, data in seen if name == "token"]
    assert "낱말0 낱말1 낱말2 낱말3 낱말4" in told[0]["text"]
    assert told[0]["restart"]
    assert text_of(told) == "".join(words).strip()
    assert next(data["seq"] for name, data in seen if name != "token") == int(last) + 1


async def test_a_record_holds_no_draft_after_its_end(api: ApiServer, ledger: Ledger, model: ImageServer) -> None:
    words = ["가나다라 "] * 300
    model.fallback = writing(words, pause=0.002)
    body = await answered(api, "유리병")
    fields = await cast("Any", ledger.client.hgetall(f"bunri:job:{body['job_id']}"))
    assert b"draft" not in fields
    assert len(await ledger.submissions.events(body["job_id"])) == 10


async def test_a_second_attempt_tells_its_text_anew(api: ApiServer, model: ImageServer) -> None:
    cut = iter([streamed(["이것은 ", "버려질 글"], pause=0.1, last=None)])

    def once(request: Request) -> Answer:
        is_chat = purpose_of(request) == "chat"
        return next(cut, streamed(PROSE, pause=0.1)) if is_chat else well_behaved(request)

    model.fallback = once
    job = await taken(api, "유리병")
    seen = [each async for each in events(api, job["stream_url"])]
    told = [data for name, data in seen if name == "token"]
    assert [token["restart"] for token in told].count(True) == 2
    assert text_of(told) == "".join(PROSE)
    assert seen[-1][1]["outcome"] == "completed"


async def test_an_answer_that_contradicts_the_rule_is_taken_back(api: ApiServer, model: ImageServer) -> None:
    wrong = ["유리병은 ", "음식물 쓰레기로 배출해 주세요. ", "그대로 버려도 돼요."]
    model.fallback = writing(wrong)
    job = await taken(api, "유리병")
    seen = [each async for each in events(api, job["stream_url"])]
    told = [data for name, data in seen if name == "token"]
    answer = seen[-1][1]["result"]["final_answer"]["user_answer"]
    assert text_of(told) == answer
    assert "음식물 쓰레기로" not in answer


# --- one question alone ---


async def test_a_session_changes_nothing(api: ApiServer, model: ImageServer) -> None:
    sessions: list[Any] = [None, "", "expired-1", 7, {"a": 1}, [], "x" * 5000, "'; DROP TABLE--"]
    bodies = [await answered(api, "유리병"), *[await answered(api, "유리병", session_id=each) for each in sessions]]
    assert {body["user_answer"] for body in bodies} == {"".join(PROSE)}
    requests = [request.body for request in model.requests]
    assert set(requests[::2]) == {requests[0]}
    assert set(requests[1::2]) == {requests[1]}


async def test_the_model_is_sent_the_system_prompt_and_this_question_alone(api: ApiServer, model: ImageServer) -> None:
    await answered(api, f"{SECRET} 유리병", session_id="s1")
    first = [orjson.loads(request.body) for request in model.requests]
    model.requests.clear()
    await answered(api, "라벨 붙은 소주병", session_id="s1")
    second = [orjson.loads(request.body) for request in model.requests]
    for one, other in zip(first, second, strict=True):
        assert [message["role"] for message in one["input"]] == ["system", "user"]
        assert one["input"][0] == other["input"][0]
        assert "previous_response_id" not in other
        assert other["store"] is False
        assert SECRET in json.dumps(one["input"][1], ensure_ascii=False)
        assert SECRET not in json.dumps(other, ensure_ascii=False)
        assert "소주병" not in json.dumps(one, ensure_ascii=False)


async def test_after_a_thousand_calls_only_expiring_job_records_are_left(
    api: ApiServer, ledger: Ledger, model: ImageServer
) -> None:
    async def some(n: int) -> None:
        for _ in range(n):
            await answered(api, "소주병", model="local", session_id="s1")

    await asyncio.gather(*(some(50) for _ in range(20)))
    assert model.requests == []
    keys = [bytes(key).decode() for key in cast("Any", await ledger.client.keys("*"))]
    jobs = [key for key in keys if key.startswith("bunri:job:")]
    assert len([key for key in jobs if not key.endswith(":events")]) == 1000
    ours = {key for key in keys if not key.startswith("_kombu.")}
    assert {key for key in ours if await ledger.client.ttl(key) < 0} <= PERMANENT_KEYS


async def test_without_the_upload_store_words_are_answered(
    jobs_settings: JobsSettings, model: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in NO_STORE.items():
        monkeypatch.setenv(name, value)
    async with running_api(jobs_settings, pipeline=PipelineSettings()) as api:
        body = await answered(api, "유리병")
    assert (body["error_code"], len(model.requests)) == (None, 2)


# --- failures ---


async def test_an_expired_link_is_said_to_be_one(api: ApiServer, model: ImageServer) -> None:
    del model
    old = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&X-Amz-Signature=secret"
    with image_server() as origin:
        origin.on("/old.jpg", reply(403))
        body = await answered(api, "이건?", image_url=origin.url(f"/old.jpg{old}"))
    assert body["error_code"] == "source.url_expired"
    assert body["user_answer"]


async def test_an_unsafe_address_is_a_typed_answer_and_no_job(api: ApiServer, model: ImageServer) -> None:
    del model
    body = await answered(api, "이건?", image_url="http://10.0.0.1/a.jpg")
    assert (body["error_code"], body["job_id"]) == ("source.url_unsafe", None)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(401, "invalid_api_key"), "model.account"),
        (refusal(), "model.refused"),
        (incomplete("max_output_tokens"), "model.bad_output"),
        (completed(READ | {"things": [{**READ["things"][0], "middle_category": "핵폐기물"}]}), "model.bad_output"),
    ],
)
async def test_a_model_that_fails_is_a_typed_answer(
    api: ApiServer, model: ImageServer, answer: Answer, code: str
) -> None:
    model.fallback = lambda _request: answer
    body = await answered(api, "유리병")
    assert body["error_code"] == code
    assert (await api.client.get(f"{CHAT}/{body['job_id']}")).json()["error"]["code"] == code


async def test_a_queue_that_is_away_is_a_typed_answer(jobs_settings: JobsSettings) -> None:
    away = jobs_settings.model_copy(update={"redis_url": type(jobs_settings.redis_url)("redis://127.0.0.1:9/0")})
    async with running_api(away) as api:
        body = await answered(api, "유리병")
    assert (body["error_code"], body["job_id"]) == ("queue.unavailable", None)


async def test_an_answer_that_takes_too_long_is_given_up(jobs_settings: JobsSettings, model: ImageServer) -> None:
    model.fallback = lambda _request: streamed(["가"] * 30, pause=0.1)
    async with running_api(jobs_settings, chat_wait=1.0) as api:
        body = await answered(api, "유리병")
    assert body["error_code"] == "job.deadline_exceeded"


async def test_an_answer_is_escaped_once(api: ApiServer, model: ImageServer) -> None:
    markup = ["<img src=x ", "onerror=alert(1)> & 유리병"]
    model.fallback = writing(markup)
    job = await taken(api, "<b>유리병</b>")
    seen = [each async for each in events(api, job["stream_url"])]
    expected = escape("".join(markup))
    assert text_of([data for name, data in seen if name == "token"]) == expected
    assert seen[-1][1]["result"]["final_answer"]["user_answer"] == expected


async def _done(api: ApiServer, url: str) -> bool:
    return (await api.client.get(url)).json()["status"] in {"completed", "failed"}


async def test_a_job_whose_asker_has_gone_still_ends(api: ApiServer, model: ImageServer) -> None:
    del model
    job = await taken(api, "유리병")
    await eventually(lambda: _done(api, job["status_url"]))


async def test_an_api_that_stops_says_to_come_back(jobs_settings: JobsSettings, model: ImageServer) -> None:
    model.fallback = writing(["가 "] * 20)
    async with running_api(jobs_settings) as api:
        asking = asyncio.create_task(answered(api, "유리병"))
        await eventually(lambda: _has_begun(model))
        api.services.feed.end_following()
        body = await asking
    assert body["error_code"] == "queue.unavailable"


async def _has_begun(model: ImageServer) -> bool:
    return len(model.requests) > 1
