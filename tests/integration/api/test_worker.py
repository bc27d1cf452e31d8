"""What the API promises and only a worker can keep: one job for one key, cancels, deadlines. A real worker runs."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from jobs.backlog import BacklogReader
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings
from tests.support.api_server import ApiServer, running_api
from tests.support.image_server import ImageServer, image_server, reply
from tests.support.openai_server import openai_server, purpose_of, well_behaved
from tests.support.redis_server import RedisServer, start_redis
from tests.support.wait import eventually
from tests.support.worker import Gate, at_rest, worker_process

SCAN = "/api/v1/scan"


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
    """The model of a worker with one slot, and with a short lease, so that it soon hears of a cancel."""
    with openai_server() as model, worker_process(redis_server.url, model, concurrency=1, WORKERS_LEASE="1"):
        yield model


@pytest.fixture(autouse=True)  # Each test of this file may be the first, and needs the worker.
def model(_serving: ImageServer, redis_url: str) -> Iterator[ImageServer]:
    yield from at_rest(_serving, redis_url)


@pytest.fixture
async def api(jobs_settings: JobsSettings) -> AsyncIterator[ApiServer]:
    local = PipelineSettings.model_validate({"fetch_allow": "127.0.0.1"})
    async with running_api(jobs_settings, pipeline=local) as api:
        yield api


async def submit(api: ApiServer, photo: str, question: str = "", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.client.post(SCAN, json={"image_url": photo, "user_input": question}, headers=named)


async def ended(api: ApiServer, job_id: str) -> dict[str, object]:
    view: dict[str, object] = (await api.client.get(f"{SCAN}/{job_id}?wait=60")).json()
    return view


async def test_twenty_duplicates_at_once_are_one_job_and_one_jobs_work(
    api: ApiServer, ledger: Ledger, model: ImageServer, photo: str
) -> None:
    replies = await asyncio.gather(*(submit(api, photo, Idempotency_Key="order-17") for _ in range(20)))
    assert {reply.status_code for reply in replies} == {202}
    [job_id] = {reply.json()["job_id"] for reply in replies}
    job = await ended(api, job_id)
    again = await submit(api, photo, Idempotency_Key="order-17")
    assert (again.json()["job_id"], again.json()["status"]) == (job_id, "completed")
    assert (job["status"], job["attempts"]) == ("completed", 1)
    assert [purpose_of(request) for request in model.requests] == ["vision", "answer"]
    assert await ledger.fleet.counts() == {"completed": 1}


async def test_a_repeat_after_a_lost_answer_is_the_same_job(
    api: ApiServer, ledger: Ledger, model: ImageServer, photo: str
) -> None:
    gate = model.fallback = Gate()
    request = api.client.build_request(
        "POST", SCAN, json={"image_url": photo, "user_input": ""}, headers={"Idempotency-Key": "order-17"}
    )
    head = f"POST {SCAN} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((api.client.base_url.host, api.client.base_url.port or 0)) as connection:
        connection.sendall(head.encode() + b"\r\n" + request.content)
    await eventually(lambda: _has_asked(model))  # Its job runs, and nobody has heard of it.
    again = await submit(api, photo, Idempotency_Key="order-17")
    gate.open()
    assert again.json()["status"] == "running"
    assert (await ended(api, again.json()["job_id"]))["status"] == "completed"
    assert await ledger.fleet.counts() == {"completed": 1}


async def test_a_cancel_during_a_model_call_makes_no_further_call_and_frees_the_slot(
    api: ApiServer, ledger: Ledger, model: ImageServer, photo: str
) -> None:
    gate = model.fallback = Gate()
    job_id = (await submit(api, photo)).json()["job_id"]
    await eventually(lambda: _has_asked(model))
    cancelled = await api.client.post(f"{SCAN}/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    model.fallback = well_behaved
    other = await submit(api, photo, "뚜껑은요?")
    assert (await ended(api, other.json()["job_id"]))["status"] == "completed"
    gate.open()
    assert [purpose_of(request) for request in model.requests] == ["vision", "vision", "answer"]
    assert (await ended(api, job_id))["status"] == "cancelled"
    assert (await BacklogReader(ledger).read()).running == 0


async def test_a_cancel_before_the_job_is_claimed_costs_nothing(
    api: ApiServer, ledger: Ledger, model: ImageServer, photo: str
) -> None:
    gate = model.fallback = Gate()
    first = (await submit(api, photo)).json()["job_id"]
    await eventually(lambda: _has_asked(model))
    waiting = (await submit(api, photo, "뚜껑은요?")).json()
    assert waiting["queue_position"] == 1
    assert (await api.client.post(waiting["cancel_url"])).status_code == 202
    gate.open()
    assert (await ended(api, first))["status"] == "completed"
    assert (await api.client.post(f"{SCAN}/{first}/cancel")).json()["code"] == "job.finished"
    last = (await submit(api, photo)).json()["job_id"]  # The cancelled job's message is before this one's.
    assert (await ended(api, last))["status"] == "completed"
    job = (await api.client.get(waiting["status_url"])).json()
    assert (job["status"], job["attempts"], job["queue_position"]) == ("cancelled", 0, None)
    assert await ledger.fleet.counts() == {"completed": 2, "cancelled": 1}
    assert len(model.requests) == 2


async def test_cancel_after_ends_a_job_that_waits_in_the_queue(api: ApiServer, model: ImageServer, photo: str) -> None:
    gate = model.fallback = Gate()
    first = (await submit(api, photo)).json()["job_id"]
    await eventually(lambda: _has_asked(model))
    reply = await submit(api, photo, "뚜껑은요?", Cancel_After="1s", Prefer="wait=60")
    gate.open()
    assert reply.status_code == 200
    job = reply.json()
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "job.deadline_exceeded", 0)
    assert (await ended(api, first))["status"] == "completed"


async def test_cancel_after_ends_a_job_that_runs(api: ApiServer, model: ImageServer, photo: str) -> None:
    model.fallback = Gate()
    job = (await submit(api, photo, Cancel_After="2s", Prefer="wait=60")).json()
    assert (job["status"], job["error"]["code"]) == ("failed", "job.deadline_exceeded")


async def _has_asked(model: ImageServer) -> bool:
    return bool(model.requests)
