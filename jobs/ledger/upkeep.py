"""The ledger for the sweep: sends what is due, rescues what stalled, ends what is overdue."""

from typing import cast

from jobs.ledger.connection import LedgerConnection
from jobs.ledger.record import priority_of
from jobs.ledger.transitions import UNHELD, Transitions
from jobs.model import Priority
from jobs.redis.connection import translated
from jobs.redis.keys import DEADLINES, LEASES, OUTBOX

RESEND_AFTER = 15.0
"""Seconds from the moment a message should be in the queue to the next one, if no worker has claimed the job.

Redis hands out a message and forgets it before the worker knows it (docs/libraries.md, C1), so it may still be lost.
"""

MAX_JOBS_PER_PASS = 1000
"""Jobs that one pass of the sweep takes."""


class Upkeep:
    """Every method raises LedgerUnavailable when Redis is in trouble, and may run twice and at once."""

    def __init__(self, connection: LedgerConnection) -> None:
        self._connection = connection
        self._max_attempts = connection.settings.max_attempts
        self._take_due = connection.scripts.load("take_due")
        self._transitions = Transitions(connection)

    async def rescue_stalled(self) -> list[str]:
        """Put back the jobs whose lease ran out; end those that took down too many workers. Returns their ids."""
        return [job_id for job_id in await self._past(LEASES) if await self._rescue(job_id)]

    async def take_due(self) -> list[tuple[str, Priority]]:
        """The jobs whose message must be sent now, each handed to one caller."""
        with translated():
            due = await self._take_due(limit=MAX_JOBS_PER_PASS, resend_after=RESEND_AFTER)
        return [(job_id.decode(), priority_of(priority)) for job_id, priority in due]

    async def send_soon(self, job_ids: list[str]) -> None:
        """Make these due again at once, unless they have been claimed meanwhile."""
        if job_ids:
            with translated():
                now = await self._connection.now()
                await self._connection.client.zadd(OUTBOX, dict.fromkeys(job_ids, now), xx=True)

    async def expire_overdue(self) -> list[str]:
        """End each job that is past its deadline. Returns the ids of those ended."""
        return [job_id for job_id in await self._past(DEADLINES) if await self._transitions.expire(job_id)]

    async def _rescue(self, job_id: str) -> bool:
        crashes = await self._transitions.put_back(job_id, UNHELD, counter="crashes")
        if crashes is None:
            return False
        if crashes >= self._max_attempts:
            await self._transitions.fail_lost(job_id)
        return True

    async def _past(self, key: str) -> list[str]:
        """Members of the sorted set whose time has passed."""
        now = await self._connection.now()
        with translated():
            members = await self._connection.client.zrangebyscore(key, "-inf", now, start=0, num=MAX_JOBS_PER_PASS)
        return [member.decode() for member in cast("list[bytes]", members)]
