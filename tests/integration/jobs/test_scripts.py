"""Calls of scripts that share a round trip: each is answered by itself."""

import asyncio
from typing import cast

import pytest
from redis.exceptions import ResponseError

from jobs.ledger.ledger import Ledger
from jobs.redis.scripts import Scripts
from tests.support.jobs import new_job


async def test_calls_made_together_happen_in_their_order_and_are_answered_each_by_itself(ledger: Ledger) -> None:
    take = Scripts(ledger.client, 2.5).load("take_token")
    await take(allowance="another", interval=60, burst=5)
    intervals = (60, 60, "no number", 60)
    replies = await asyncio.gather(
        *(take(allowance="caller", interval=each, burst=5) for each in intervals), return_exceptions=True
    )
    assert isinstance(replies.pop(2), ResponseError)
    assert [cast("list[int]", reply)[1] for reply in replies] == [4, 3, 2]


async def test_a_redis_that_forgot_the_scripts_is_told_again(ledger: Ledger) -> None:
    await ledger.submissions.create(new_job())
    await ledger.client.script_flush()
    jobs = [new_job() for _ in range(3)]
    assert all(created.is_new for created in await asyncio.gather(*map(ledger.submissions.create, jobs)))


async def test_a_call_given_up_while_another_is_on_its_way_is_never_sent(ledger: Ledger) -> None:
    first, second = new_job(), new_job()
    await ledger.submissions.create(new_job())
    on_its_way = asyncio.create_task(ledger.submissions.create(first))
    for _ in range(3):
        await asyncio.sleep(0)
    given_up = asyncio.create_task(ledger.submissions.create(second))
    await asyncio.sleep(0)
    given_up.cancel()
    await on_its_way
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await ledger.submissions.create(new_job())
    assert await ledger.submissions.is_gone(second.job_id)
    assert not await ledger.submissions.is_gone(first.job_id)
