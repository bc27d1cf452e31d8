"""The feed against a real Redis: replay, live events, one reader, long-poll."""

import asyncio

from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.model import JobEvent, JobStatus
from jobs.redis.keys import FEED
from pipeline.types import Stage
from tests.support.jobs import new_job, result, started
from tests.support.wait import eventually


async def followed(feed: Feed, job_id: str, after: int = 0) -> list[JobEvent]:
    return [event async for event in feed.follow(job_id, after) if isinstance(event, JobEvent)]


async def run_to_end(ledger: Ledger, job_id: str) -> None:
    claim = await ledger.claims.claim(job_id)
    assert claim is not None
    for stage in (Stage.FETCH, Stage.VISION, Stage.RULE, Stage.ANSWER):
        await ledger.claims.record(claim, started(stage))
    await ledger.claims.complete(claim, result())


async def test_followers_before_during_and_after_see_the_same_events(ledger: Ledger, feed: Feed) -> None:
    job_id = (await ledger.submissions.create(new_job())).job_id
    early = [asyncio.create_task(followed(feed, job_id)) for _ in range(3)]
    await run_to_end(ledger, job_id)
    late = await followed(feed, job_id)
    assert [event.seq for event in late] == list(range(1, len(late) + 1))
    assert late[-1].stage is Stage.DONE
    assert await asyncio.gather(*early) == [late, late, late]


async def test_a_follower_resumes_after_the_event_it_saw_last(ledger: Ledger, feed: Feed) -> None:
    job_id = (await ledger.submissions.create(new_job())).job_id
    await run_to_end(ledger, job_id)
    everything = await followed(feed, job_id)
    assert await followed(feed, job_id, after=3) == everything[3:]


async def test_an_event_that_the_stream_lost_is_read_from_the_list(ledger: Ledger, feed: Feed) -> None:
    job_id = (await ledger.submissions.create(new_job())).job_id
    follower = asyncio.create_task(followed(feed, job_id))
    claim = await ledger.claims.claim(job_id)
    assert claim is not None
    await ledger.client.rpush(f"bunri:job:{job_id}:events", b'{"seq":2,"stage":"fetch"}')
    await ledger.claims.complete(claim, result())
    assert [event.seq for event in await follower] == [1, 2, 3, 4]


async def test_the_reader_goes_on_after_the_stream_was_lost(ledger: Ledger, feed: Feed) -> None:
    await ledger.client.delete(FEED)
    job_id = (await ledger.submissions.create(new_job())).job_id
    follower = asyncio.create_task(followed(feed, job_id))
    await run_to_end(ledger, job_id)
    assert (await follower)[-1].stage is Stage.DONE


async def test_a_wait_returns_when_the_job_ends(ledger: Ledger, feed: Feed) -> None:
    job_id = (await ledger.submissions.create(new_job())).job_id
    waiting = asyncio.create_task(feed.wait(job_id, 30))
    await run_to_end(ledger, job_id)
    job = await waiting
    assert job is not None
    assert job.status is JobStatus.COMPLETED


async def test_a_wait_that_runs_out_returns_the_job_as_it_is(ledger: Ledger, feed: Feed) -> None:
    job_id = (await ledger.submissions.create(new_job())).job_id
    job = await feed.wait(job_id, 0.05)
    assert job is not None
    assert job.status is JobStatus.QUEUED


async def test_a_follower_that_leaves_is_forgotten(ledger: Ledger, feed: Feed) -> None:
    job_id = (await ledger.submissions.create(new_job())).job_id
    follower = asyncio.create_task(followed(feed, job_id))

    async def is_followed() -> bool:
        return bool(feed.backlogs())

    await eventually(is_followed)
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    assert not feed.backlogs()
