"""The legacy synchronous POST /scan/classify, which must never answer 5xx for a photo that failed."""

import asyncio

import httpx
import pytest

from jobs.ledger.ledger import Ledger
from jobs.model import JobError
from jobs.settings import JobsSettings
from pipeline.types import Stage
from tests.support.api_server import ApiServer, first_claim, running_api
from tests.support.jobs import result
from tests.support.redis_server import closed_port

CLASSIFY = "/api/v1/scan/classify"
PHOTO = {"image_url": "https://photos.example/cup.jpg", "user_input": "?"}


def outcome(reply: httpx.Response) -> tuple[int, str, str]:
    return reply.status_code, reply.json()["status"], reply.json()["error"]["code"]


async def test_the_answer_is_the_result(api: ApiServer, ledger: Ledger) -> None:
    asking = asyncio.create_task(api.client.post(CLASSIFY, json=PHOTO))
    claim = await first_claim(ledger)
    await ledger.claims.complete(claim, result())
    reply = await asking
    assert reply.status_code == 200
    assert reply.json() == (await api.client.get(f"/api/v1/scan/{claim.job_id}/result")).json()


async def test_a_failed_classification_is_a_200(api: ApiServer, ledger: Ledger) -> None:
    asking = asyncio.create_task(api.client.post(CLASSIFY, json=PHOTO))
    claim = await first_claim(ledger)
    await ledger.claims.fail(claim, JobError(code="model.unavailable", retryable=True, trace_id="0" * 32), Stage.VISION)
    reply = await asking
    assert outcome(reply) == (200, "failed", "model.unavailable")
    assert reply.json()["task_id"] == claim.job_id


@pytest.mark.parametrize("body", [{}, {"image_url": None}, {"image_url": "", "user_input": "유리병"}])
async def test_no_photo_is_a_failed_classification(api: ApiServer, body: dict[str, object]) -> None:
    reply = await api.client.post(CLASSIFY, json=body)
    assert outcome(reply) == (200, "failed", "request.invalid")
    assert reply.json()["task_id"] is None


async def test_an_unsafe_address_is_a_failed_classification(api: ApiServer) -> None:
    reply = await api.client.post(CLASSIFY, json={"image_url": "http://127.0.0.1/"})
    assert outcome(reply) == (200, "failed", "source.url_unsafe")


async def test_a_job_that_takes_too_long_ends_as_its_caller_is_told(
    jobs_settings: JobsSettings, ledger: Ledger
) -> None:
    async with running_api(jobs_settings, classify_wait=0.05) as api:
        reply = await api.client.post(CLASSIFY, json=PHOTO)
        assert outcome(reply) == (200, "failed", "job.deadline_exceeded")
        assert reply.json() == (await api.client.get(f"/api/v1/scan/{reply.json()['task_id']}/result")).json()
        assert await ledger.fleet.depth() == 0


async def test_a_full_queue_is_a_failed_classification(jobs_settings: JobsSettings) -> None:
    async with running_api(jobs_settings, max_queued=1) as api:
        await api.client.post("/api/v1/scan", json=PHOTO)
        reply = await api.client.post(CLASSIFY, json=PHOTO)
    assert outcome(reply) == (200, "failed", "queue.saturated")


async def test_without_redis_it_is_a_failed_classification() -> None:
    jobs = JobsSettings.model_validate({"redis_url": f"redis://127.0.0.1:{closed_port()}/0"})
    async with running_api(jobs) as api:
        reply = await api.client.post(CLASSIFY, json=PHOTO)
    assert outcome(reply) == (200, "failed", "queue.unavailable")
