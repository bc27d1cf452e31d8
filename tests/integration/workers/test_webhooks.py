"""Webhooks from a real dispatcher to real receivers that misbehave. Each request is verified as it comes."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import structlog

from jobs import deliveries as store
from jobs.ledger.ledger import Ledger
from jobs.ledger.transitions import Transitions
from kit.address import AddressGuard
from tests.support.api_server import ApiServer
from tests.support.deliverer import attempted, closed, completed_job, delivering
from tests.support.image_server import (
    Answer,
    Request,
    drip,
    endless,
    image_server,
    raw,
    redirect,
    reply,
    reset,
    silence,
    trickle,
)
from tests.support.jobs import new_job
from tests.support.receiver import OTHER_SECRET, SECRET, Receiver, receiver
from tests.support.redis_server import free_port
from tests.support.wait import eventually
from workers.webhooks import dispatcher, sender


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as hook:
        yield hook


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt may take half a second on the wire, instead of fifteen."""
    monkeypatch.setattr(sender, "ATTEMPT_SECONDS", 0.5)


async def test_a_finished_job_arrives_byte_for_byte_as_a_poll_shows_it(
    ledger: Ledger, api: ApiServer, hook: Receiver
) -> None:
    async with delivering(ledger) as deliveries:
        job_id = await completed_job(ledger, hook.url)
        await closed(deliveries, job_id)
    polled = (await api.client.get(f"/api/v1/scan/{job_id}")).content
    [request] = hook.requests
    assert request.body.partition(b'"data":')[2] == polled + b"}"
    [message] = hook.messages
    assert (message["type"], message["data"]["status"]) == ("job.completed", "completed")
    assert message["timestamp"].endswith("Z")
    assert request.target == "/hooks/path-token?token=TOPSECRET"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Bunri/")
    assert not {"cookie", "authorization", "traceparent"} & set(request.headers)


async def test_a_cancelled_job_arrives(ledger: Ledger, hook: Receiver) -> None:
    job = new_job().model_copy(update={"callback_url": hook.url})
    await ledger.submissions.create(job)
    async with delivering(ledger) as deliveries:
        await ledger.submissions.cancel(job.job_id)
        await closed(deliveries, job.job_id)
    [message] = hook.messages
    assert (message["type"], message["data"]["error"]["code"]) == ("job.cancelled", "job.cancelled")


async def test_an_attempt_that_failed_is_repeated_under_the_same_id_with_a_fresh_time_and_signature(
    ledger: Ledger, hook: Receiver
) -> None:
    hook.answers = [reply(500), reply(503)]
    async with delivering(ledger, schedule=(1.1, 1.1)) as deliveries:
        job_id = await completed_job(ledger, hook.url)
        delivery = await closed(deliveries, job_id)
    assert [(each.status, each.outcome) for each in delivery.attempts] == [
        (500, "retry"),
        (503, "retry"),
        (204, "delivered"),
    ]
    sent = [request.headers for request in hook.requests]
    assert {headers["webhook-id"] for headers in sent} == {job_id}
    times = [int(headers["webhook-timestamp"]) for headers in sent]
    assert times[0] < times[1] < times[2]
    assert len({headers["webhook-signature"] for headers in sent}) == 3
    assert len({request.body for request in hook.requests}) == 1


HEAD = b"HTTP/1.1 200 OK\r\nX-Padding: " + b"a" * 5000

FAILURES: dict[str, tuple[Answer, int | None, str | None]] = {
    "an error": (reply(500), 500, None),
    "not found": (reply(404), 404, None),
    "a redirect to the metadata service": (redirect("http://169.254.169.254/latest/meta-data/"), 302, None),
    "silence": (silence(), None, "timeout"),
    "a head that trickles": (trickle(HEAD, 0.01), None, "timeout"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.9\r\n"), None, "unreachable"),
    "a head without end": (raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000), None, "unreachable"),
    "a connection that is torn down": (reset(), None, "unreachable"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failed_attempt_is_recorded_and_the_job_arrives_when_the_receiver_recovers(
    ledger: Ledger, hook: Receiver, failure: str
) -> None:
    answer, status, error = FAILURES[failure]
    hook.answers = [answer]
    async with delivering(ledger) as deliveries:
        job_id = await completed_job(ledger, hook.url)
        delivery = await closed(deliveries, job_id)
    first, second = delivery.attempts
    assert (first.status, first.error, first.outcome) == (status, error, "retry")
    assert second.outcome == "delivered"
    assert len(hook.messages) == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "answer", [endless(b"x" * 65_536), drip(b"slow", 60), silence(headers=True)], ids=["endless", "slow", "missing"]
)
async def test_the_status_decides_and_the_body_behind_it_is_not_waited_for(
    ledger: Ledger, hook: Receiver, answer: Answer
) -> None:
    hook.otherwise = answer
    async with delivering(ledger) as deliveries:
        delivery = await closed(deliveries, await completed_job(ledger, hook.url))
    assert [(each.status, each.outcome) for each in delivery.attempts] == [(200, "delivered")]


async def test_a_redirect_is_not_followed(ledger: Ledger, hook: Receiver) -> None:
    with image_server() as elsewhere:
        hook.answers = [redirect(elsewhere.url("/internal"), status) for status in (301, 302, 303, 307, 308)]
        async with delivering(ledger, schedule=(0.05,) * 5) as deliveries:
            delivery = await closed(deliveries, await completed_job(ledger, hook.url))
        assert elsewhere.connections == 0
    assert [each.status for each in delivery.attempts] == [301, 302, 303, 307, 308, 204]


async def test_a_receiver_that_is_down_gets_the_job_when_it_is_back(ledger: Ledger) -> None:
    port = free_port()
    bodies: list[bytes] = []

    def take(request: Request) -> Answer:
        bodies.append(request.body)
        return reply(200)

    async with delivering(ledger, schedule=(0.3,) * 50) as deliveries:
        job_id = await completed_job(ledger, f"http://127.0.0.1:{port}/hook")
        delivery = await attempted(deliveries, job_id, times=2)
        assert {each.error for each in delivery.attempts} == {"unreachable"}
        with image_server(take, port):
            delivery = await closed(deliveries, job_id)
    assert delivery.attempts[-1].outcome == "delivered"
    assert len(bodies) == 1


async def test_gone_stops_the_delivery(ledger: Ledger, hook: Receiver) -> None:
    hook.otherwise = reply(410)
    async with delivering(ledger) as deliveries:
        delivery = await closed(deliveries, await completed_job(ledger, hook.url))
    assert [(each.status, each.outcome) for each in delivery.attempts] == [(410, "stopped")]


async def test_a_delivery_is_given_up_when_its_schedule_is_used_up(ledger: Ledger, hook: Receiver) -> None:
    hook.otherwise = reply(500)
    async with delivering(ledger, schedule=(0.01, 0.02)) as deliveries:
        delivery = await closed(deliveries, await completed_job(ledger, hook.url))
    assert [(each.outcome, each.retry_in) for each in delivery.attempts] == [
        ("retry", 0.01),
        ("retry", 0.02),
        ("gave_up", None),
    ]


@pytest.mark.parametrize(
    ("status", "wish", "wait"), [(429, "30", 30), (503, "30", 30), (429, "99999", 60), (429, "soon", 5), (500, "30", 5)]
)
async def test_retry_after_is_heeded_within_bounds(
    ledger: Ledger, hook: Receiver, status: int, wish: str, wait: float
) -> None:
    hook.otherwise = reply(status, Retry_After=wish)
    async with delivering(ledger, schedule=(5, 60)) as deliveries:
        delivery = await attempted(deliveries, await completed_job(ledger, hook.url))
        planned_in = (delivery.due_at or 0) - await ledger.now()
    assert [each.retry_in for each in delivery.attempts] == [wait]
    assert wait - 5 < planned_in <= wait


async def test_a_receiver_may_hold_the_old_or_the_new_secret(ledger: Ledger, hook: Receiver) -> None:
    with receiver(OTHER_SECRET) as newer:
        async with delivering(ledger, secrets=f"{OTHER_SECRET},{SECRET}") as deliveries:
            for each in (hook, newer):
                assert (await closed(deliveries, await completed_job(ledger, each.url))).attempts
    assert len(hook.messages) == len(newer.messages) == 1


async def test_an_address_that_turns_out_to_be_private_is_never_dialled(ledger: Ledger, hook: Receiver) -> None:
    port = hook.server.port
    guard = AddressGuard("", (port,))
    async with delivering(ledger, guard=guard, lookup=lambda _host, _port: ["127.0.0.1"]) as deliveries:
        for host in ("hooks.example.com", "127.0.0.1"):
            delivery = await closed(deliveries, await completed_job(ledger, f"http://{host}:{port}/"))
            assert {each.error for each in delivery.attempts} == {"unsafe_address"}
    assert hook.server.connections == 0


async def test_receivers_that_hang_delay_no_other(
    ledger: Ledger, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MAX_CONCURRENT", 12)
    monkeypatch.setattr(dispatcher, "MAX_CONCURRENT_PER_RECEIVER", 5)
    monkeypatch.setattr(sender, "ATTEMPT_SECONDS", 300)  # However slow this machine is, none of them ends.
    monkeypatch.setattr(store, "LEASE_SECONDS", 600)
    with ExitStack() as stack:
        hanging = [stack.enter_context(image_server(lambda _request: silence())) for _ in range(2)]
        for each in hanging * 40:
            await completed_job(ledger, each.url("/hook"))
        job_ids = [await completed_job(ledger, hook.url) for _ in range(20)]
        async with delivering(ledger) as deliveries:
            for job_id in job_ids:
                assert (await closed(deliveries, job_id)).attempts[-1].outcome == "delivered"
            assert [each.connections for each in hanging] == [5, 5]
            assert await deliveries.open() == 80


async def test_many_jobs_for_one_receiver_come_a_few_at_a_time_and_all_of_them(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MAX_CONCURRENT_PER_RECEIVER", 3)
    arrived = Counter[str]()

    def take(request: Request) -> Answer:
        arrived[request.headers["webhook-id"]] += 1
        return reply(200)

    with image_server(take) as hook:
        job_ids = [await completed_job(ledger, hook.url("/hook")) for _ in range(60)]
        async with delivering(ledger) as deliveries:
            for job_id in job_ids:
                assert len((await closed(deliveries, job_id)).attempts) == 1
    assert arrived == Counter(job_ids)


async def test_an_attempt_under_way_when_its_process_stops_is_repeated_at_once_by_the_next(
    ledger: Ledger, hook: Receiver
) -> None:
    hook.answers = [silence()]
    async with delivering(ledger) as deliveries:
        job_id = await completed_job(ledger, hook.url)
        await eventually(lambda: _has_messages(hook, 1))
    async with delivering(ledger) as deliveries:
        delivery = await closed(deliveries, job_id)
    assert [(each.error, each.outcome) for each in delivery.attempts] == [
        ("interrupted", "retry"),
        (None, "delivered"),
    ]
    assert len({request.headers["webhook-id"] for request in hook.requests}) == 1


async def _has_messages(hook: Receiver, count: int) -> bool:
    return len(hook.messages) >= count


async def test_a_job_that_was_delivered_arrives_again_when_asked_for(ledger: Ledger, hook: Receiver) -> None:
    async with delivering(ledger) as deliveries:
        job_id = await completed_job(ledger, hook.url)
        await closed(deliveries, job_id)
        await deliveries.resend(job_id)
        delivery = await attempted(deliveries, job_id, times=2)
    assert [each.outcome for each in delivery.attempts] == ["delivered", "delivered"]
    assert hook.messages[0] == hook.messages[1]


async def test_a_record_that_cannot_be_read_is_noted_and_others_go_on(ledger: Ledger, hook: Receiver) -> None:
    async with delivering(ledger, schedule=(60,)) as deliveries:
        damaged = new_job().model_copy(update={"callback_url": hook.url})
        await ledger.submissions.create(damaged)
        await ledger.client.hset(f"bunri:job:{damaged.job_id}", "metadata", "no JSON")
        await Transitions(ledger).expire(damaged.job_id)
        assert [each.error for each in (await attempted(deliveries, damaged.job_id)).attempts] == ["internal"]
        assert (await closed(deliveries, await completed_job(ledger, hook.url))).attempts[-1].outcome == "delivered"


async def test_nothing_of_the_callback_but_its_host_is_logged(ledger: Ledger, hook: Receiver) -> None:
    hook.answers = [reply(500), reset(), redirect("http://169.254.169.254/TOPSECRET")]
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async with delivering(ledger) as deliveries:
            job_id = await completed_job(ledger, hook.url)
            await closed(deliveries, job_id)
    logged = [line for line in lines if line["event"] == "delivery.attempted"]
    assert len(logged) == 4
    assert {line["receiver"] for line in logged} == {f"127.0.0.1:{hook.server.port}"}
    assert "TOPSECRET" not in repr(lines)
    assert "path-token" not in repr(lines)


async def test_a_cookie_that_was_set_is_not_sent_back(ledger: Ledger, hook: Receiver) -> None:
    hook.answers = [reply(500, Set_Cookie="session=1; Path=/")]
    async with delivering(ledger) as deliveries:
        await closed(deliveries, await completed_job(ledger, hook.url))
    assert [request.headers.get("cookie") for request in hook.requests] == [None, None]
