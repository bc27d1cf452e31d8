"""Webhooks of a real worker process."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from jobs.deliveries import Deliveries
from jobs.ledger.ledger import Ledger
from jobs.redis.keys import DELIVERIES, OUTBOX, WORKERS
from pipeline.types import JobInput
from tests.support.deliverer import closed, completed_job, delivering
from tests.support.image_server import image_server, reply, silence
from tests.support.jobs import new_job
from tests.support.openai_server import openai_server
from tests.support.receiver import SECRET, Receiver, receiver
from tests.support.wait import eventually
from tests.support.worker import working


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as hook:
        yield hook


@pytest.fixture
def deliveries(ledger: Ledger) -> Deliveries:
    return Deliveries(ledger)


async def test_a_photo_becomes_a_webhook_and_its_address_no_log_line(
    ledger: Ledger,
    deliveries: Deliveries,
    redis_url: str,
    hook: Receiver,
    samples: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with image_server() as origin, openai_server() as model:
        url = origin.on("/glass.jpg", reply(200, (samples / "glass-1.jpg").read_bytes()))
        hook.answers = [reply(500)]
        signing: dict[str, Any] = {"WORKERS_WEBHOOK_SECRETS": SECRET, "WORKERS_WEBHOOK_SCHEDULE": "[0.1]"}
        async with working(ledger, redis_url, model, **signing):
            job = new_job().model_copy(update={"input": JobInput(image_url=url), "callback_url": hook.url})
            await ledger.submissions.create(job)
            await ledger.client.zadd(OUTBOX, {job.job_id: 1.0})  # Have it sent now.
            await eventually(lambda: _has_messages(hook, 1), within=60)
            delivery = await closed(deliveries, job.job_id)
    assert [attempt.status for attempt in delivery.attempts] == [500, 204]
    assert hook.messages[0]["data"]["result"]["disposal_rules"]["category"] == "유리병"
    logged = capfd.readouterr().err
    assert "delivery.attempted" in logged
    assert "TOPSECRET" not in logged
    assert "path-token" not in logged


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_an_attempt_whose_worker_goes_in_the_middle_is_repeated_by_another(
    ledger: Ledger, deliveries: Deliveries, redis_url: str, hook: Receiver, how: signal.Signals
) -> None:
    hook.answers = [silence()]
    job_id = await completed_job(ledger, hook.url)
    with openai_server() as model:
        async with working(ledger, redis_url, model, WORKERS_WEBHOOK_SECRETS=SECRET) as first:
            await eventually(lambda: _has_messages(hook, 1))
            first.send_signal(how)
            first.wait(timeout=30)
    if how is signal.SIGKILL:  # Nobody handed it back: its lease has to run out, which it does here at once.
        await ledger.client.zadd(DELIVERIES, {job_id: 1.0}, xx=True)
    async with delivering(ledger):
        delivery = await closed(deliveries, job_id)
    assert [(attempt.error, attempt.outcome) for attempt in delivery.attempts] == [
        ("interrupted", "retry"),
        (None, "delivered"),
    ]
    assert {request.headers["webhook-id"] for request in hook.requests} == {job_id}


async def test_a_worker_without_a_secret_leaves_deliveries_to_those_that_have_one(
    ledger: Ledger, deliveries: Deliveries, redis_url: str, hook: Receiver
) -> None:
    job_id = await completed_job(ledger, hook.url)
    with openai_server() as model:
        async with working(ledger, redis_url, model):
            born_at = await _last_beat(ledger)
            await eventually(lambda: _has_beaten_since(ledger, born_at))  # Many rounds later.
            assert await deliveries.due() == 1
    assert hook.requests == []
    async with delivering(ledger):
        await closed(deliveries, job_id)
    assert len(hook.messages) == 1


async def _last_beat(ledger: Ledger) -> float:
    [(_, beaten_at)] = await cast("Any", ledger.client.zrange(WORKERS, 0, -1, withscores=True))
    return float(beaten_at)


async def _has_beaten_since(ledger: Ledger, then: float) -> bool:
    return await _last_beat(ledger) > then


async def _has_messages(hook: Receiver, count: int) -> bool:
    return len(hook.messages) >= count
