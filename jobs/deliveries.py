"""Deliveries: webhooks of finished jobs that are still to be sent, and the outcome of each attempt.

The script that ends a job makes its delivery due, so nothing can be lost in between. An attempt is held under a lease:
a worker that dies in one only delays it, and a receiver may get a job's webhook more than once.
"""

from enum import StrEnum

import orjson

from jobs.ledger.connection import LedgerConnection
from jobs.redis import keys
from jobs.redis.connection import translated
from jobs.redis.keys import DELIVERIES, DELIVERY_COUNTS
from pipeline.types import Strict, VersionTolerant

LEASE_SECONDS = 30.0
"""Seconds for one attempt, from the moment it is taken: twice the 15 that it may take on the wire."""


class Outcome(StrEnum):
    """What an attempt means for its delivery."""

    DELIVERED = "delivered"
    RETRY = "retry"
    GAVE_UP = "gave_up"
    STOPPED = "stopped"


class AttemptError(StrEnum):
    """Why an attempt got no status. An interrupted one may have arrived: its worker stopped or died in the middle."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    UNSAFE_ADDRESS = "unsafe_address"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"


class AttemptReport(Strict):
    """The outcome of an attempt: a status or an error. `retry_in` and `next_step`: when to try again, if at all."""

    status: int | None = None
    error: AttemptError | None = None
    seconds: float | None = None
    outcome: Outcome
    retry_in: float | None = None
    next_step: int = 0


class Attempt(VersionTolerant):
    """An attempt as it is stored. `at` is when it began; `retry_in` counts from its end."""

    number: int
    at: float
    status: int | None = None
    error: AttemptError | None = None
    seconds: float | None = None
    outcome: Outcome
    retry_in: float | None = None


class Due(Strict):
    """A delivery that this worker may attempt. `lease` is the fencing token of this attempt."""

    job_id: str
    lease: str
    callback_url: str


class Begun(Strict):
    """An attempt under way. `step` is its delivery's step in the schedule, from 0."""

    job_id: str
    lease: str
    number: int
    step: int


class Delivery(Strict):
    """The state of a job's delivery. `due_at`: when the next attempt is planned, if there is one.

    While an attempt runs, `due_at` is when its lease ends.
    """

    has_callback: bool
    attempts: tuple[Attempt, ...]
    due_at: float | None


class Deliveries:
    """One per process, on the ledger's client. Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, ledger: LedgerConnection) -> None:
        self._client, scripts = ledger.client, ledger.scripts
        self._take, self._resend = scripts.load("take_deliveries"), scripts.load("resend")
        self._begin, self._end = scripts.load("begin_attempt"), scripts.load("end_attempt")

    # --- the worker's side ---

    async def take(self, most: int) -> list[Due]:
        """Deliveries that are due, the oldest first, each handed to one caller for the time of a lease."""
        with translated():
            reply = await self._take(limit=most, lease=LEASE_SECONDS)
        taken = [part.decode() for part in reply]
        return [
            Due(job_id=job_id, lease=lease, callback_url=url)
            for job_id, lease, url in zip(taken[::3], taken[1::3], taken[2::3], strict=True)
        ]

    async def put_off(self, delays: dict[str, float]) -> None:
        """`delays`: job id → seconds. Reschedule deliveries that were taken and not begun."""
        with translated():
            seconds, micros = await self._client.time()
            now = seconds + micros / 1e6
            await self._client.zadd(DELIVERIES, {job_id: now + delay for job_id, delay in delays.items()}, xx=True)

    async def begin(self, due: Due) -> Begun | None:
        """Begin the attempt. None when the delivery is done or has another holder by now."""
        lost = AttemptReport(error=AttemptError.INTERRUPTED, outcome=Outcome.RETRY, retry_in=0)
        with translated():
            reply = await self._begin(
                job=keys.job(due.job_id),
                attempts=keys.attempts(due.job_id),
                job_id=due.job_id,
                lease=due.lease,
                lease_seconds=LEASE_SECONDS,
                lost_outcome=lost.outcome,
                lost_body=_noted(lost),
            )
        if not reply:
            return None
        number, step, lease = reply
        return Begun(job_id=due.job_id, lease=lease.decode(), number=number, step=step)

    async def end(self, attempt: Begun, report: AttemptReport) -> bool:
        """Record the outcome and plan the next attempt, in one write. False when the lease was lost: it is repeated."""
        with translated():
            ended = await self._end(
                job=keys.job(attempt.job_id),
                attempts=keys.attempts(attempt.job_id),
                events=keys.events(attempt.job_id),
                job_id=attempt.job_id,
                lease=attempt.lease,
                next_step=report.next_step,
                retry_in="" if report.retry_in is None else report.retry_in,
                outcome=report.outcome,
                body=_noted(report),
            )
        return bool(ended)

    # --- the api's side ---

    async def of(self, job_id: str) -> Delivery:
        with translated():
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.hexists(keys.job(job_id), "callback")
                pipe.zscore(DELIVERIES, job_id)
                pipe.lrange(keys.attempts(job_id), 0, -1)
                has_callback, due_at, attempts = await pipe.execute()
        return Delivery(
            has_callback=has_callback,
            due_at=due_at,
            attempts=tuple(Attempt.model_validate_json(each) for each in attempts),
        )

    async def resend(self, job_id: str) -> bool:
        """Make the delivery due now, with its schedule from the start. False for a job without a callback.

        A job that has not ended is delivered when it has; an attempt that is under way is left to end.
        """
        job, attempts, events = keys.job(job_id), keys.attempts(job_id), keys.events(job_id)
        with translated():
            return bool(await self._resend(job=job, attempts=attempts, events=events, job_id=job_id))

    async def counts(self) -> dict[Outcome, int]:
        """Attempts since the ledger began."""
        with translated():
            found = await self._client.hgetall(DELIVERY_COUNTS)
        return {outcome: int(found.get(outcome.encode(), 0)) for outcome in Outcome}

    async def due(self) -> int:
        """Deliveries that are due and wait for a free worker."""
        with translated():
            seconds, micros = await self._client.time()
            return int(await self._client.zcount(DELIVERIES, "-inf", seconds + micros / 1e6))

    async def open(self) -> int:
        """Deliveries that have not ended: planned, due or under way."""
        with translated():
            return int(await self._client.zcard(DELIVERIES))


def _noted(report: AttemptReport) -> bytes:
    return orjson.dumps(report.model_dump(exclude={"next_step"}, exclude_none=True))
