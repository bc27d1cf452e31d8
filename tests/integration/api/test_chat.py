"""Chat at the API's edge: what is refused, counted, repeated or not waited for. No worker runs; the test plays it."""

import asyncio

import httpx
import pytest

from api.routes import chat
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from tests.support.api_server import ApiServer, first_claim, running_api
from tests.support.jobs import result
from tests.support.redis_server import closed_port

CHAT = "/api/v1/chat"
MESSAGES = f"{CHAT}/messages"
QUESTION = {"message": "유리병"}
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture(autouse=True)
def _short_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "END_MARGIN_SECONDS", 0.1)


def away() -> JobsSettings:
    return JobsSettings.model_validate({"redis_url": f"redis://127.0.0.1:{closed_port()}/0"})


def failure(reply: httpx.Response) -> tuple[int, str, str | None]:
    return reply.status_code, reply.json()["error_code"], reply.headers.get("retry-after")


# --- refusals ---


@pytest.mark.parametrize("rate_limit", [0, 60])
async def test_a_queue_that_is_away_is_a_typed_answer_that_says_when_to_come_back(rate_limit: int) -> None:
    async with running_api(away(), rate_limit=rate_limit) as api:
        reply = await api.client.post(MESSAGES, json=QUESTION)
    assert failure(reply) == (201, "queue.unavailable", "5")


async def test_a_full_queue_is_a_typed_answer_that_says_when_to_come_back(jobs_settings: JobsSettings) -> None:
    async with running_api(jobs_settings, max_queued=1, rate_limit=60) as api:
        await api.client.post(MESSAGES, json=QUESTION, headers=ASYNC)
        reply = await api.client.post(MESSAGES, json=QUESTION)
    assert failure(reply) == (201, "queue.saturated", "5")
    assert reply.headers["ratelimit-remaining"] == "28"


@pytest.mark.parametrize("headers", [{}, ASYNC])
async def test_a_caller_over_its_rate_is_told_by_the_status(
    jobs_settings: JobsSettings, headers: dict[str, str]
) -> None:
    async with running_api(jobs_settings, rate_limit=1, rate_burst=1) as api:
        await api.client.post(MESSAGES, json=QUESTION, headers=ASYNC)
        reply = await api.client.post(MESSAGES, json=QUESTION, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (429, "request.rate_limited")
    assert "retry-after" in reply.headers


async def test_another_request_under_the_same_key_is_refused_by_the_status(api: ApiServer) -> None:
    key = {"Idempotency-Key": "k"}
    await api.client.post(MESSAGES, json=QUESTION, headers=key | ASYNC)
    reply = await api.client.post(MESSAGES, json={"message": "캔"}, headers=key)
    assert (reply.status_code, reply.json()["code"]) == (409, "idempotency.mismatch")


# --- the language of a refusal ---


@pytest.mark.parametrize(
    ("asked", "language", "is_english"),
    [({}, "en", True), ({}, "ko", False), ({"locale": "en"}, "ko", True), ({"locale": "ko"}, "en", False)],
)
async def test_a_refusal_speaks_the_language_of_the_body_else_the_callers(
    api: ApiServer, asked: dict[str, str], language: str, *, is_english: bool
) -> None:
    reply = await api.client.post(MESSAGES, json={"message": "", **asked}, headers={"Accept-Language": language})
    assert reply.status_code == 422
    assert reply.json()["detail"].isascii() is is_english


@pytest.mark.parametrize(
    ("path", "body"), [(MESSAGES, QUESTION), ("/api/v1/scan", {"image_url": "https://photos.example/cup.jpg"})]
)
async def test_a_refusal_for_the_rate_speaks_the_language_of_the_body(
    jobs_settings: JobsSettings, path: str, body: dict[str, str]
) -> None:
    async with running_api(jobs_settings, rate_limit=1, rate_burst=1) as api:
        await api.client.post(path, json=body, headers=ASYNC)
        reply = await api.client.post(path, json=body | {"locale": "en"}, headers=ASYNC | {"Accept-Language": "ko"})
    assert reply.status_code == 429
    assert reply.json()["detail"].isascii()


# --- the wait ---


@pytest.mark.parametrize(("cancel_after", "deadline"), [("3s", 3), ("5m", 30), (None, 30)])
async def test_an_asker_may_wait_for_less_than_the_longest_time(
    jobs_settings: JobsSettings, ledger: Ledger, cancel_after: str | None, deadline: float
) -> None:
    headers = {"Cancel-After": cancel_after} if cancel_after else {}
    async with running_api(jobs_settings, chat_wait=30.0) as api:
        asking = asyncio.create_task(api.client.post(MESSAGES, json=QUESTION, headers=headers))
        claim = await first_claim(ledger)
        await ledger.claims.complete(claim, result())
        reply = await asking
    assert reply.json()["error_code"] is None
    assert deadline - 2 < claim.time_left <= deadline


async def test_a_wait_out_of_bounds_is_refused(api: ApiServer) -> None:
    reply = await api.client.post(MESSAGES, json=QUESTION, headers={"Cancel-After": "0s"})
    assert (reply.status_code, reply.json()["code"]) == (422, "request.invalid")


async def test_a_question_that_nobody_took_ends_as_its_asker_was_told(jobs_settings: JobsSettings) -> None:
    async with running_api(jobs_settings, chat_wait=0.1) as api:
        reply = await api.client.post(MESSAGES, json=QUESTION)
        job = (await api.client.get(f"{CHAT}/{reply.json()['job_id']}")).json()
    assert failure(reply) == (201, "job.deadline_exceeded", None)
    assert (job["status"], job["error"]["code"]) == ("failed", "job.deadline_exceeded")


async def test_a_repeat_that_has_waited_in_vain_leaves_the_first_requests_job_alone(
    jobs_settings: JobsSettings, ledger: Ledger
) -> None:
    key = {"Idempotency-Key": "k"}
    async with running_api(jobs_settings, chat_wait=0.1) as api:
        job = (await api.client.post(MESSAGES, json=QUESTION, headers=key | ASYNC)).json()
        in_vain = await api.client.post(MESSAGES, json=QUESTION, headers=key)
        left = (await api.client.get(job["status_url"])).json()
        await ledger.claims.complete(await first_claim(ledger), result())
        answered = await api.client.post(MESSAGES, json=QUESTION, headers=key)
    assert failure(in_vain) == (201, "job.unfinished", None)
    assert (in_vain.json()["job_id"], left["status"]) == (job["job_id"], "queued")
    assert (answered.json()["job_id"], answered.json()["error_code"]) == (job["job_id"], None)
