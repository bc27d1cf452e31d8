"""GET /scan/{id}/events over a real connection while the test plays the worker."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest

from api.schemas.jobs import EventView
from jobs.ids import new_job_id
from jobs.ledger.ledger import Ledger
from jobs.model import Claim, JobError
from pipeline.types import Stage
from tests.support.api_server import ApiServer
from tests.support.jobs import completed, new_job, result, started
from tests.support.wait import eventually

SCAN = "/api/v1/scan"


@dataclass(frozen=True)
class Sent:
    name: str
    id: int
    data: dict[str, Any]
    raw: str


async def sent(response: httpx.Response) -> AsyncIterator[Sent]:
    """The events of a stream, read as a browser reads them."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and "data" in fields:
            yield Sent(fields["event"], int(fields["id"]), json.loads(fields["data"]), fields["data"])
            fields = {}


async def replay(api: ApiServer, job_id: str, **headers: str) -> list[Sent]:
    """Every event up to the end of the stream."""
    async with api.client.stream("GET", f"{SCAN}/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200
        return [event async for event in sent(response)]


async def claimed(ledger: Ledger) -> Claim:
    job = new_job()
    await ledger.submissions.create(job)
    claim = await ledger.claims.claim(job.job_id)
    assert claim
    return claim


async def run(ledger: Ledger, claim: Claim) -> None:
    """What a worker records for a job that goes well."""
    await ledger.claims.record(claim, started(Stage.FETCH))
    await ledger.claims.record(claim, completed(Stage.FETCH), started(Stage.VISION))
    await ledger.claims.record(claim, completed(Stage.VISION), completed(Stage.RULE), started(Stage.ANSWER))
    await ledger.claims.record(claim, completed(Stage.ANSWER))
    await ledger.claims.complete(claim, result())


def followers(api: ApiServer) -> int:
    return len(api.services.feed.backlogs())


async def has_followers(api: ApiServer, count: int) -> bool:
    return followers(api) == count


async def test_a_finished_job_replays_its_events_in_order_and_ends(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await run(ledger, claim)
    events = await replay(api, claim.job_id)
    assert [(event.name, event.data["status"]) for event in events] == [
        ("queued", "completed"),
        ("fetch", "started"),
        ("fetch", "completed"),
        ("vision", "started"),
        ("vision", "completed"),
        ("rule", "completed"),
        ("answer", "started"),
        ("answer", "completed"),
        ("reward", "skipped"),
        ("done", "completed"),
    ]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    for event in events:
        assert event.data["job_id"] == claim.job_id
        assert (event.data["stage"], event.data["seq"]) == (event.name, event.id)
        assert EventView.model_validate(event.data).ts > 0
    assert followers(api) == 0


async def test_events_arrive_while_the_job_runs(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger)
    async with api.client.stream("GET", f"{SCAN}/{claim.job_id}/events") as response:
        events = cast("Any", sent(response))
        assert (await anext(events)).name == "queued"
        await ledger.claims.record(claim, started(Stage.FETCH))
        assert (await anext(events)).data["status"] == "started"
        await ledger.claims.complete(claim, result())
        assert [event.name async for event in events] == ["reward", "done"]


async def test_done_carries_the_outcome_and_the_very_result_that_polling_gets(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await run(ledger, claim)
    done = (await replay(api, claim.job_id))[-1]
    assert (done.data["status"], done.data["outcome"], done.data["progress"]) == ("completed", "completed", 100)
    polled = (await api.client.get(f"{SCAN}/{claim.job_id}/result")).text
    result_text = polled[polled.index('"pipeline_result":') + len('"pipeline_result":') : polled.index(',"reward"')]
    assert f'"result":{result_text}' in done.raw


async def test_done_of_a_failed_job_is_completed_with_the_error(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger)
    error = JobError(code="source.timeout", retryable=True, trace_id=claim.trace_id)
    await ledger.claims.fail(claim, error, Stage.FETCH)
    events = await replay(api, claim.job_id)
    assert (events[-2].name, events[-2].data["status"]) == ("fetch", "failed")
    done = events[-1].data
    assert (done["status"], done["outcome"]) == ("completed", "failed")
    assert "result" not in done
    assert done["error"] == (await api.client.get(f"{SCAN}/{claim.job_id}/result")).json()["error"]


async def test_no_event_is_named_error(api: ApiServer, ledger: Ledger) -> None:
    """Existing clients close the stream for good on an event of that name."""
    claim = await claimed(ledger)
    await ledger.claims.fail(claim, JobError(code="internal", retryable=False, trace_id=claim.trace_id), Stage.VISION)
    assert "error" not in [event.name for event in await replay(api, claim.job_id)]


async def test_a_cancelled_job_ends_its_stream(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger)
    async with api.client.stream("GET", f"{SCAN}/{claim.job_id}/events") as response:
        events = cast("Any", sent(response))
        await anext(events)
        await api.client.post(f"{SCAN}/{claim.job_id}/cancel")
        assert [event.data["outcome"] async for event in events] == ["cancelled"]


@pytest.mark.parametrize("seen", range(10))
async def test_a_stream_resumes_after_the_last_event_without_loss_or_repeat(
    api: ApiServer, ledger: Ledger, seen: int
) -> None:
    claim = await claimed(ledger)
    await run(ledger, claim)
    events = await replay(api, claim.job_id, **{"Last-Event-ID": str(seen)})
    assert [event.id for event in events] == list(range(seen + 1, 11))


@pytest.mark.parametrize("last_event_id", ["", "x", "-1", "1e3", "999", "9" * 40, "²"])
async def test_an_event_id_that_is_none_of_the_jobs_replays_from_the_start(
    api: ApiServer, ledger: Ledger, last_event_id: str
) -> None:
    claim = await claimed(ledger)
    await ledger.claims.complete(claim, result())
    url = f"{SCAN}/{claim.job_id}/events"
    reply = await api.client.get(url, headers=[(b"Last-Event-ID", last_event_id.encode())])
    assert reply.status_code == 200
    assert "id: 1\n" in reply.text


async def test_a_client_that_has_seen_the_end_is_told_not_to_come_back(api: ApiServer, ledger: Ledger) -> None:
    """A browser reconnects after any end of a stream but a 204."""
    claim = await claimed(ledger)
    await ledger.claims.complete(claim, result())
    last = (await replay(api, claim.job_id))[-1].id
    reply = await api.client.get(f"{SCAN}/{claim.job_id}/events", headers={"Last-Event-ID": str(last)})
    assert (reply.status_code, reply.content) == (204, b"")


async def test_a_silent_stream_is_kept_alive(api: ApiServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.feed.feed.KEEPALIVE_SECONDS", 0.02)
    claim = await claimed(ledger)
    async with (
        api.client.stream("GET", f"{SCAN}/{claim.job_id}/events") as response,
        aclosing(cast("Any", response.aiter_lines())) as lines,
    ):
        async for line in lines:
            if line == ": keepalive":
                return
    pytest.fail("the stream ended without a keepalive")


async def test_the_headers_keep_proxies_from_holding_events_back(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger)
    await ledger.claims.complete(claim, result())
    reply = await api.client.get(f"{SCAN}/{claim.job_id}/events")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache, no-transform"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.text.startswith("retry: ")


async def test_a_client_that_leaves_frees_its_follower(api: ApiServer, ledger: Ledger) -> None:
    claim = await claimed(ledger)
    async with api.client.stream("GET", f"{SCAN}/{claim.job_id}/events") as response:
        await anext(cast("Any", sent(response)))
        assert followers(api) == 1
    await eventually(lambda: has_followers(api, 0))


async def test_the_stream_of_an_unknown_job_is_a_problem(api: ApiServer) -> None:
    reply = await api.client.get(f"{SCAN}/{new_job_id()}/events")
    assert reply.headers["content-type"] == "application/problem+json"
