"""POST /api/v1/scan against a real Redis; no worker runs, so jobs wait."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import redis
import structlog

from jobs.ids import new_job_id
from jobs.ledger.ledger import Ledger
from jobs.model import JobStatus, WorkerBeat
from jobs.redis.keys import OUTBOX
from jobs.settings import JobsSettings
from tests.support.api_server import ApiServer, first_claim, running_api
from tests.support.jobs import result
from tests.support.redis_server import closed_port

SCAN = "/api/v1/scan"
PHOTO = "https://photos.example/cup.jpg?signature=TOPSECRET"


def body(**fields: object) -> dict[str, object]:
    return {"image_url": PHOTO} | fields


def messages(jobs: JobsSettings) -> int:
    with redis.Redis.from_url(jobs.broker) as client:
        return len(client.lrange(jobs.queue, 0, -1))


async def finish_first_job(ledger: Ledger) -> None:
    await ledger.claims.complete(await first_claim(ledger), result())


async def test_a_photo_is_taken_as_a_job_with_paths_to_follow_it(api: ApiServer, ledger: Ledger) -> None:
    answer = await api.client.post(SCAN, json=body(user_input="이거 뭐예요?", metadata={"order": "17"}))
    assert answer.status_code == 202
    taken = answer.json()
    path = f"{SCAN}/{taken['job_id']}"
    assert answer.headers["location"] == path
    assert taken == {
        "job_id": taken["job_id"],
        "status": "queued",
        "stream_url": f"{path}/events",
        "result_url": f"{path}/result",
        "status_url": path,
        "cancel_url": f"{path}/cancel",
        "queue_position": 1,
        "estimated_wait": None,
        "pipeline_version": api.services.knowledge.version,
    }
    job = await ledger.submissions.get(taken["job_id"])
    assert job is not None
    assert job.input.image_url == PHOTO
    assert job.input.user_input == "이거 뭐예요?"
    assert job.metadata == {"order": "17"}


async def test_a_taken_job_is_in_the_queue_and_sent_again_only_if_nobody_takes_it(
    api: ApiServer, ledger: Ledger, jobs_settings: JobsSettings
) -> None:
    await api.client.post(SCAN, json=body())
    assert messages(jobs_settings) == 1
    assert await ledger.upkeep.take_due() == []
    assert await ledger.client.zcard(OUTBOX) == 1


async def test_each_job_hears_its_place_in_the_queue(api: ApiServer) -> None:
    await api.client.post(SCAN, json=body())
    second = await api.client.post(SCAN, json=body())
    assert second.json()["queue_position"] == 2


async def test_the_same_key_and_body_give_the_same_job(api: ApiServer) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = await api.client.post(SCAN, json=body(), headers=headers)
    again = await api.client.post(SCAN, json={"locale": "ko", **body(user_input=None)}, headers=headers)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert await api.services.ledger.fleet.depth() == 1


async def test_a_repeat_shows_the_job_as_it_is_now(api: ApiServer, ledger: Ledger) -> None:
    headers = {"Idempotency-Key": "order-17"}
    await api.client.post(SCAN, json=body(), headers=headers)
    await finish_first_job(ledger)
    again = await api.client.post(SCAN, json=body(), headers=headers)
    assert again.json()["status"] == "completed"
    assert again.json()["queue_position"] is None


async def test_the_same_key_with_another_body_is_a_conflict(api: ApiServer) -> None:
    headers = {"Idempotency-Key": "order-17"}
    await api.client.post(SCAN, json=body(), headers=headers)
    other = await api.client.post(SCAN, json=body(user_input="?"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency.mismatch")


async def test_a_job_that_the_broker_refused_is_sent_by_the_repeat(jobs_settings: JobsSettings) -> None:
    headers = {"Idempotency-Key": "order-17"}
    deaf = jobs_settings.model_copy(update={"broker_url": _secret(f"redis://127.0.0.1:{closed_port()}/0")})
    async with running_api(deaf) as api:
        refused = await api.client.post(SCAN, json=body(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (503, "queue.unavailable")
    assert refused.headers["retry-after"]
    assert messages(jobs_settings) == 0
    async with running_api(jobs_settings) as api:
        taken = await api.client.post(SCAN, json=body(), headers=headers)
        assert taken.status_code == 202
        assert await api.services.ledger.fleet.depth() == 1
    assert messages(jobs_settings) == 1


def _secret(url: str) -> Any:  # pydantic's SecretStr, as the settings hold it
    return JobsSettings.model_validate({"redis_url": url}).redis_url


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/cup.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "ftp://photos.example/cup.jpg",
        "file:///etc/passwd",
        "cup.jpg",
        "https://user:pass@photos.example/cup.jpg",
        "http://photos.example:22/",
        "http://[::ffff:10.0.0.1]/",
    ],
)
async def test_an_address_that_may_not_be_fetched_is_refused_before_it_is_a_job(
    api: ApiServer, ledger: Ledger, url: str
) -> None:
    answer = await api.client.post(SCAN, json={"image_url": url})
    assert (answer.status_code, answer.json()["code"]) == (422, "source.url_unsafe")
    assert await ledger.fleet.depth() == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"image_url": None}, "body.image_url"),
        ({"image_url": ""}, "body.image_url"),
        ({"image_url": 7}, "body.image_url"),
        ({"image_url": "https://photos.example/" + "a" * 9000}, "body.image_url"),
        ({"user_input": "가" * 2001}, "body.user_input"),
        ({"user_input": "\ud800"}, "body.user_input"),
        ({"locale": "fr"}, "body.locale"),
        ({"priority": "urgent"}, "body.priority"),
        ({"image_key": "uploads/1"}, "body.image_key"),
        ({"callback_url": "https://hooks.example/"}, "body.callback_url"),
        ({"metadata": {str(n): "" for n in range(17)}}, "body.metadata"),
        ({"metadata": {"k" * 65: "v"}}, "body.metadata"),
        ({"metadata": {"k": "v" * 513}}, "body.metadata"),
        ({"metadata": {"k": 1}}, "body.metadata"),
    ],
)
async def test_a_mistake_in_the_body_is_named(api: ApiServer, fields: dict[str, object], field: str) -> None:
    content = json.dumps(body(**fields))  # with \u escapes, so that a lone surrogate can be sent
    answer = await api.client.post(SCAN, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert [mistake["field"] for mistake in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 60_000])
async def test_a_body_that_is_no_json_object_is_refused(api: ApiServer, content: bytes) -> None:
    answer = await api.client.post(SCAN, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert answer.json()["errors"][0]["field"].partition(".")[0] == "body"


async def test_a_refusal_repeats_neither_the_urls_query_nor_what_was_sent(api: ApiServer) -> None:
    answer = await api.client.post(SCAN, json=body(user_input=["TOPSECRET"], metadata={"TOPSECRET": 1}))
    assert answer.status_code == 422
    assert "TOPSECRET" not in answer.text


async def test_no_log_line_holds_the_urls_query(api: ApiServer) -> None:
    with structlog.testing.capture_logs() as lines:
        taken = await api.client.post(SCAN, json=body())
        await api.client.post(SCAN, json={"image_url": "http://10.0.0.1/?signature=TOPSECRET"})
        await api.client.get(taken.json()["status_url"] + "?token=TOPSECRET")
    assert len(lines) >= 3
    assert "TOPSECRET" not in repr(lines)


async def test_fields_of_other_versions_are_ignored(api: ApiServer) -> None:
    answer = await api.client.post(SCAN, json=body(session_id="1", user_input=None, image_key=None))
    assert answer.status_code == 202


async def test_a_model_that_the_workers_lack_is_named(api: ApiServer, ledger: Ledger) -> None:
    await ledger.fleet.beat(WorkerBeat(worker="host:1", pipeline_version="0123456789ab", models=("local",)))
    answer = await api.client.post(SCAN, json=body(model="gpt-1"))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.model")


@pytest.mark.parametrize(("model", "status"), [("local", 202), ("gpt-5.6-terra", 503)])
async def test_without_a_worker_only_the_local_model_is_sure_to_come(api: ApiServer, model: str, status: int) -> None:
    assert (await api.client.post(SCAN, json=body(model=model))).status_code == status


async def test_a_model_that_the_workers_have_can_be_chosen(api: ApiServer, ledger: Ledger) -> None:
    await ledger.fleet.beat(
        WorkerBeat(worker="host:1", pipeline_version="0123456789ab", models=("local", "gpt-5.6-terra"))
    )
    answer = await api.client.post(SCAN, json=body(model="gpt-5.6-terra"))
    job = await ledger.submissions.get(answer.json()["job_id"])
    assert job is not None
    assert job.input.model == "gpt-5.6-terra"


@pytest.mark.parametrize(("asked", "seconds"), [("90s", 90), ("5m", 300), ("1s", 1)])
async def test_cancel_after_is_the_jobs_deadline(api: ApiServer, ledger: Ledger, asked: str, seconds: int) -> None:
    answer = await api.client.post(SCAN, json=body(), headers={"Cancel-After": asked})
    job = await ledger.submissions.get(answer.json()["job_id"])
    assert job is not None
    assert job.deadline_at - job.created_at == pytest.approx(seconds)


@pytest.mark.parametrize("asked", ["", "90", "0s", "-1s", "1h", "11m", "601s", "1e9s", "9999999s", "٣s"])
async def test_a_cancel_after_out_of_form_or_bounds_is_refused(api: ApiServer, asked: str) -> None:
    answer = await api.client.post(SCAN, json=body(), headers=[(b"Cancel-After", asked.encode())])
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "header.Cancel-After")


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "키"])
async def test_an_idempotency_key_out_of_form_is_refused(api: ApiServer, key: str) -> None:
    answer = await api.client.post(SCAN, json=body(), headers=[(b"Idempotency-Key", key.encode())])
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "header.Idempotency-Key")


async def test_prefer_wait_answers_with_the_finished_job(api: ApiServer, ledger: Ledger) -> None:
    worker = asyncio.create_task(finish_first_job(ledger))
    answer = await api.client.post(SCAN, json=body(), headers={"Prefer": "respond-async, wait=20"})
    await worker
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["location"] == f"{SCAN}/{answer.json()['job_id']}"
    assert answer.json()["status"] == JobStatus.COMPLETED
    assert answer.json()["result"]["final_answer"]["user_answer"]


async def test_prefer_wait_answers_202_when_the_job_takes_longer(jobs_settings: JobsSettings) -> None:
    async with running_api(jobs_settings, max_wait=0.05) as api:
        answer = await api.client.post(SCAN, json=body(), headers={"Prefer": "wait=600"})
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"


async def test_a_full_queue_refuses_and_says_when_to_come_back(jobs_settings: JobsSettings) -> None:
    async with running_api(jobs_settings, max_queued=1) as api:
        await api.client.post(SCAN, json=body())
        refused = await api.client.post(SCAN, json=body())
    assert (refused.status_code, refused.json()["code"]) == (503, "queue.saturated")
    assert refused.headers["retry-after"]


async def test_without_redis_the_api_starts_and_refuses_jobs_as_unavailable() -> None:
    jobs = JobsSettings.model_validate({"redis_url": f"redis://127.0.0.1:{closed_port()}/0"})
    async with running_api(jobs) as api:
        answers = [await api.client.post(SCAN, json=body()), await _job_of_before(api)]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "queue.unavailable")}
    assert all(answer.headers["retry-after"] for answer in answers)


async def _job_of_before(api: ApiServer) -> httpx.Response:
    return await api.client.get(f"{SCAN}/{new_job_id()}")
