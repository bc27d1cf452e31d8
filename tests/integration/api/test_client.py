"""The typed client against a real API: what it does when it is told to come back later."""

import asyncio

import pytest

from client import ApiProblem, BunriClient
from jobs.ledger.ledger import Ledger
from jobs.redis.keys import PACE
from jobs.settings import JobsSettings
from tests.support.api_server import first_claim, running_api
from tests.support.jobs import beat, new_job, result

PHOTO = "https://photos.example/cup.jpg"


async def test_a_submit_over_the_rate_waits_as_asked_and_is_taken(jobs_settings: JobsSettings, ledger: Ledger) -> None:
    async with (
        running_api(jobs_settings, rate_limit=60, rate_burst=1) as api,
        BunriClient(str(api.client.base_url)) as client,
    ):
        taken = [await client.submit(PHOTO, priority=priority) for priority in ("interactive", "bulk")]
        jobs = [await client.job(each.job_id) for each in taken]
    assert [(job.priority, job.queue_position) for job in jobs] == [("interactive", 1), ("bulk", 2)]
    assert await ledger.fleet.depth() == 2


async def test_a_pause_above_a_minute_is_the_callers_to_wait_for(jobs_settings: JobsSettings, ledger: Ledger) -> None:
    await ledger.fleet.beat(beat(concurrency=1))
    jobs = [await ledger.submissions.create(new_job()) for _ in range(3)]
    await ledger.claims.claim(jobs[0].job_id)
    await ledger.client.hset(PACE, mapping={"at": await ledger.now(), "seconds": 500.0, "turns": 1})
    async with running_api(jobs_settings, max_queued=2) as api, BunriClient(str(api.client.base_url)) as client:
        with pytest.raises(ApiProblem) as refusal:
            async with asyncio.timeout(30):
                await client.submit(PHOTO)
    assert (refusal.value.code, refusal.value.retry_after) == ("queue.saturated", 300)


async def test_a_question_is_asked_and_a_failure_is_an_answer(jobs_settings: JobsSettings, ledger: Ledger) -> None:
    async with running_api(jobs_settings) as api, BunriClient(str(api.client.base_url)) as client:
        asking = asyncio.create_task(client.ask("<b>소주병</b>"))
        claim = await first_claim(ledger)
        await ledger.claims.complete(claim, result("비워서 <유리병> & 배출"))
        answer = await asking
        refused = await client.ask("이건?", image_url="http://10.0.0.1/a.jpg")
        with pytest.raises(ApiProblem) as wrong:
            await client.ask("")
    assert (answer.user_answer, answer.error_code, answer.job_id) == ("비워서 <유리병> & 배출", None, claim.job_id)
    assert (refused.error_code, refused.job_id) == ("source.url_unsafe", None)
    assert wrong.value.code == "request.invalid"
