"""The sweep's rounds against a real ledger, with a broker that says no."""

from typing import cast

import pytest

from jobs.broker.queue import JobQueue
from jobs.errors import QueueUnavailable
from jobs.ledger.ledger import Ledger
from jobs.model import JobStatus, Priority
from jobs.redis.keys import OUTBOX
from tests.support.jobs import new_job
from tests.support.wait import eventually
from workers.maintenance.sweep import expire_overdue, resend_due


class BrokenQueue:
    """Refuses the first message, takes the rest."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def enqueue(self, job_id: str, _priority: Priority) -> None:
        self.asked.append(job_id)
        if len(self.asked) == 1:
            raise QueueUnavailable("meant")


async def test_a_message_that_the_broker_refused_is_due_again_and_holds_up_no_other(ledger: Ledger) -> None:
    ids = [(await ledger.submissions.create(new_job())).job_id for _ in range(5)]
    await ledger.client.zadd(OUTBOX, dict.fromkeys(ids, 1.0))
    queue = BrokenQueue()
    await resend_due(ledger, cast("JobQueue", queue))
    assert sorted(queue.asked) == sorted(ids)
    refused = queue.asked[0]
    await resend_due(ledger, cast("JobQueue", queue))
    assert queue.asked[5:] == [refused]


@pytest.mark.parametrize("damaged", [{"trace_id": b"\xff\xfe"}, {"stage": b"\xff"}, {"input": b"?"}])
async def test_a_damaged_record_is_ended_and_holds_up_no_other(ledger: Ledger, damaged: dict[str, bytes]) -> None:
    first, second = new_job(deadline=0.001), new_job(deadline=0.001)
    for job in (first, second):
        await ledger.submissions.create(job)
    [(name, value)] = damaged.items()
    await ledger.client.hset(f"bunri:job:{first.job_id}", name, value)
    await eventually(lambda: _has_ended(ledger, second.job_id))


async def _has_ended(ledger: Ledger, job_id: str) -> bool:
    await expire_overdue(ledger)
    job = await ledger.submissions.get(job_id)
    return job is not None and job.status is JobStatus.FAILED
