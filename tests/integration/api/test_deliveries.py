"""A callback_url at submit, and deliveries over HTTP and on the command line, with a real deliverer and receiver."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator

import orjson
import pytest
import structlog

from client import BunriClient, WebhookRefused, verify
from jobs.ids import new_job_id
from jobs.ledger.ledger import Ledger
from jobs.redis.keys import DELIVERIES
from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings
from tests.support.api_server import ApiServer, first_claim, running_api
from tests.support.bunri import run_bunri
from tests.support.deliverer import closed, completed_job, delivering
from tests.support.image_server import reply
from tests.support.jobs import new_job, result
from tests.support.receiver import OTHER_SECRET, SECRET, Receiver, receiver

SCAN = "/api/v1/scan"
PHOTO = "https://photos.example/cup.jpg"


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as hook:
        yield hook


@pytest.fixture
async def signing_api(redis_url: str) -> AsyncIterator[ApiServer]:
    """It has a secret, and may call loopback."""
    jobs = JobsSettings.model_validate({"redis_url": redis_url, "webhook_secrets": SECRET})
    pipeline = PipelineSettings.model_validate({"fetch_allow": "127.0.0.1"})
    async with running_api(jobs, pipeline=pipeline) as api:
        yield api


@pytest.fixture
def base_url(signing_api: ApiServer) -> str:
    return str(signing_api.client.base_url)


async def test_a_job_submitted_with_a_callback_arrives_there(
    signing_api: ApiServer, ledger: Ledger, hook: Receiver
) -> None:
    submitted = await signing_api.client.post(SCAN, json={"image_url": PHOTO, "callback_url": hook.url})
    job_id = submitted.json()["job_id"]
    path = f"{SCAN}/{job_id}/deliveries"
    assert (await signing_api.client.get(path)).json() == {
        "job_id": job_id,
        "state": "waiting",
        "next_attempt_at": None,
        "attempts": [],
    }
    await ledger.claims.complete(await first_claim(ledger), result())
    assert (await signing_api.client.get(path)).json()["state"] == "due"
    async with delivering(ledger) as deliveries:
        await closed(deliveries, job_id)
    shown = (await signing_api.client.get(path)).json()
    [attempt] = shown["attempts"]
    assert (shown["state"], shown["next_attempt_at"]) == ("delivered", None)
    assert (attempt["number"], attempt["status"], attempt["error"], attempt["outcome"]) == (1, 204, None, "delivered")
    assert [message["data"]["job_id"] for message in hook.messages] == [job_id]


async def test_without_a_secret_a_callback_is_refused(api: ApiServer, ledger: Ledger) -> None:
    answer = await api.client.post(SCAN, json={"image_url": PHOTO, "callback_url": "https://hooks.example/"})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert [mistake["field"] for mistake in answer.json()["errors"]] == ["body.callback_url"]
    assert await ledger.fleet.depth() == 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example",
        "ftp://hooks.example/",
        "http://10.0.0.1/?token=TOPSECRET",
        "http://169.254.169.254/",
        "https://user:TOPSECRET@hooks.example/",
        "https://hooks.example:22/",
        "https://hooks.example/" + "a" * 9000,
    ],
)
async def test_a_callback_that_may_not_be_called_is_refused_by_its_field_and_not_repeated(
    signing_api: ApiServer, ledger: Ledger, url: str
) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await signing_api.client.post(SCAN, json={"image_url": PHOTO, "callback_url": url})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert [mistake["field"] for mistake in answer.json()["errors"]] == ["body.callback_url"]
    assert "TOPSECRET" not in answer.text + repr(lines)
    assert await ledger.fleet.depth() == 0


async def test_the_callback_is_shown_nowhere(signing_api: ApiServer, ledger: Ledger, hook: Receiver) -> None:
    with structlog.testing.capture_logs() as lines:
        submitted = await signing_api.client.post(SCAN, json={"image_url": PHOTO, "callback_url": hook.url})
        await ledger.claims.complete(await first_claim(ledger), result())
        job_id = submitted.json()["job_id"]
        answers = [submitted, *[await signing_api.client.get(f"{SCAN}/{job_id}{part}") for part in PARTS]]
        answers.append(await signing_api.client.get("/metrics"))
    seen = "".join(answer.text for answer in answers) + repr(lines)
    assert "TOPSECRET" not in seen
    assert "path-token" not in seen


PARTS = ("", "/result", "/events", "/deliveries")


async def test_another_callback_is_another_request_to_an_idempotency_key(
    signing_api: ApiServer, hook: Receiver
) -> None:
    headers = {"Idempotency-Key": "order-17"}
    bodies = [{"image_url": PHOTO, "callback_url": url} for url in (hook.url, hook.url, hook.url + "&other")]
    answers = [await signing_api.client.post(SCAN, json=body, headers=headers) for body in bodies]
    assert [answer.status_code for answer in answers] == [202, 202, 409]


async def test_a_job_without_a_callback_has_no_delivery_and_cannot_be_delivered(
    signing_api: ApiServer, ledger: Ledger
) -> None:
    job = new_job()
    await ledger.submissions.create(job)
    path = f"{SCAN}/{job.job_id}/deliveries"
    assert (await signing_api.client.get(path)).json()["state"] == "none"
    refused = await signing_api.client.post(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "delivery.no_callback")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("make_id", [lambda: "nothing", new_job_id], ids=["not an id", "of no job"])
async def test_deliveries_of_no_job_are_404(signing_api: ApiServer, method: str, make_id: Callable[[], str]) -> None:
    answer = await signing_api.client.request(method, f"{SCAN}/{make_id()}/deliveries")
    assert (answer.status_code, answer.json()["code"]) == (404, "job.not_found")


async def test_a_delivery_that_was_stopped_is_due_at_once_when_asked_for_again(
    signing_api: ApiServer, ledger: Ledger, hook: Receiver, base_url: str
) -> None:
    hook.answers = [reply(410)]
    async with delivering(ledger) as deliveries, BunriClient(base_url) as client:
        job_id = await completed_job(ledger, hook.url)
        await closed(deliveries, job_id)
        assert (await client.delivery(job_id)).state == "stopped"
        assert (await client.resend(job_id)).state == "due"
        await closed(deliveries, job_id)
        assert [attempt.status for attempt in (await client.delivery(job_id)).attempts] == [410, 204]
    assert signing_api


async def test_the_command_line_lists_attempts_and_sends_again(ledger: Ledger, hook: Receiver, base_url: str) -> None:
    job_id = await completed_job(ledger, hook.url)
    async with delivering(ledger) as deliveries:
        await closed(deliveries, job_id)
        done = await bunri("webhook", "resend", job_id, "--api", base_url)
        assert done.returncode == 0, done.stderr
        await closed(deliveries, job_id)
    listed = orjson.loads((await bunri("webhook", "list", job_id, "--api", base_url, "--json")).stdout)
    assert [attempt["outcome"] for attempt in listed["attempts"]] == ["delivered", "delivered"]
    table = await bunri("webhook", "list", job_id, "--api", base_url)
    assert (table.returncode, table.stdout.count("204")) == (0, 2)


async def test_the_command_line_names_what_the_api_refuses(base_url: str) -> None:
    done = await bunri("webhook", "resend", new_job_id(), "--api", base_url)
    assert done.returncode == 2
    assert "job.not_found" in done.stderr


async def bunri(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(run_bunri, *arguments)


async def test_the_client_verifies_what_was_sent_and_refuses_everything_else(ledger: Ledger, hook: Receiver) -> None:
    job_id = await completed_job(ledger, hook.url)
    async with delivering(ledger) as deliveries:
        await closed(deliveries, job_id)
    [request] = hook.requests
    ended = verify(request.body, request.headers, OTHER_SECRET, SECRET)
    assert (ended.id, ended.type, ended.job.job_id) == (job_id, "job.completed", job_id)
    assert ended.job.result is not None
    for body, changed in (
        (request.body + b" ", {}),
        (request.body, {"webhook-id": "another"}),
        (request.body, {"webhook-timestamp": "1600000000"}),
        (request.body, {"webhook-signature": "nonsense"}),
        (request.body, {"webhook-signature": "v1,no base64!"}),
        (b"\xff", {}),
    ):
        with pytest.raises(WebhookRefused):
            verify(body, request.headers | changed, SECRET)
    with pytest.raises(WebhookRefused):
        verify(request.body, {}, SECRET)
    with pytest.raises(WebhookRefused):
        verify(request.body, request.headers, OTHER_SECRET)


async def test_metrics_count_attempts_and_what_is_due(signing_api: ApiServer, ledger: Ledger, hook: Receiver) -> None:
    hook.answers = [reply(500)]
    async with delivering(ledger) as deliveries:
        await closed(deliveries, await completed_job(ledger, hook.url))
    await completed_job(ledger, hook.url)
    planned = await completed_job(ledger, hook.url)
    await ledger.client.zincrby(DELIVERIES, 60, planned)
    lines = (await signing_api.client.get("/metrics")).text.splitlines()
    assert 'bunri_delivery_attempts_total{outcome="delivered"} 1.0' in lines
    assert 'bunri_delivery_attempts_total{outcome="retry"} 1.0' in lines
    assert 'bunri_delivery_attempts_total{outcome="gave_up"} 0.0' in lines
    assert "bunri_deliveries_open 2.0" in lines
    assert "bunri_deliveries_due 1.0" in lines
