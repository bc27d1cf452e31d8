"""Webhook delivery: attempt what is due, record it, plan the next attempt.

Attempts wait for nobody: each is a task of its own. A process makes so many at once and, of these, few to one receiver;
what is above that is put off, so that one receiver that hangs holds up no other.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import structlog

from jobs.deliveries import AttemptError, Begun, Deliveries, Due, Outcome, Report
from jobs.errors import LedgerUnavailable
from jobs.ledger.ledger import Ledger
from jobs.view import WebhookView
from pipeline.knowledge.texts import Texts
from workers.webhooks.sender import Reply, WebhookSender

EVERY = 0.5
"""Seconds between two looks at what is due, while no attempt ends."""

AT_ONCE = 200
AT_ONCE_TO_ONE = 10
"""Attempts of one process at the same time, and those of them that go to one receiver."""

PACE = 0.02
LONGEST_PUT_OFF = 30.0
"""What is put off comes back in so many seconds one after the other, as if each attempt took 0.2 s; at most in 30 s."""

GRACE = 1.0
"""Seconds that attempts have to end when the process stops."""

GONE = 410

log = structlog.get_logger()


def plan(reply: Reply, step: int, schedule: Sequence[float]) -> Report:
    """What the reply means for its delivery, whose `step` steps of the schedule are used up. Pure.

    Retry-After is heeded up to the schedule's longest step, and never brings the next attempt forward.
    """
    outcome, retry_in = Outcome.RETRY, None
    if reply.status is not None and 200 <= reply.status < 300:  # noqa: PLR2004 - the successes
        outcome = Outcome.DELIVERED
    elif reply.status == GONE:
        outcome = Outcome.STOPPED
    elif step >= len(schedule):
        outcome = Outcome.GAVE_UP
    else:
        retry_in = max(schedule[step], min(reply.retry_after or 0, max(schedule)))
    return Report(status=reply.status, error=reply.error, outcome=outcome, retry_in=retry_in, next_step=step + 1)


class Deliverer:
    """One per process. Call `round` again and again, on one loop. `texts` tells those in use now."""

    def __init__(
        self,
        ledger: Ledger,
        deliveries: Deliveries,
        sender: WebhookSender,
        texts: Callable[[], Texts],
        schedule: Sequence[float],
    ) -> None:
        self._ledger = ledger
        self._deliveries = deliveries
        self._sender = sender
        self._texts = texts
        self._schedule = schedule
        self._attempts: set[asyncio.Task[None]] = set()
        self._receivers = Counter[str]()
        self._turns: dict[str, float] = {}
        self._has_ended = asyncio.Event()

    async def round(self) -> None:
        """Wait a little, or until an attempt has ended and left room; then start attempts at all that is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY):
                await self._has_ended.wait()
        self._has_ended.clear()
        while (room := AT_ONCE - len(self._attempts)) > 0 and (due := await self._deliveries.take(room)):
            await self._start(due)

    async def close(self) -> None:
        """Let attempts end for a moment; note the rest as interrupted, to be repeated by another worker at once."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=GRACE)
        for attempt in self._attempts:
            attempt.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        await self._sender.close()

    async def _start(self, deliveries: list[Due]) -> None:
        put_off = {}
        for due in deliveries:
            receiver = urlsplit(due.callback_url).netloc
            if self._receivers[receiver] < AT_ONCE_TO_ONE:
                self._start_one(due, receiver)
            else:
                put_off[due.job_id] = self._turn(receiver)
        if put_off:
            await self._deliveries.put_off(put_off)

    def _start_one(self, due: Due, receiver: str) -> None:
        def forget(attempt: asyncio.Task[None]) -> None:
            self._attempts.discard(attempt)
            self._receivers[receiver] -= 1
            self._receivers += Counter()  # drops those at zero
            self._has_ended.set()

        attempt = asyncio.create_task(self._attempt(due, receiver), name=f"deliver-{due.job_id}")
        self._attempts.add(attempt)
        self._receivers[receiver] += 1
        attempt.add_done_callback(forget)

    def _turn(self, receiver: str) -> float:
        """Seconds until the next of those that this receiver has no room for should be looked at again."""
        now = time.monotonic()
        self._turns = {name: turn for name, turn in self._turns.items() if turn > now}
        turn = self._turns[receiver] = min(self._turns.get(receiver, now) + PACE, now + LONGEST_PUT_OFF)
        return turn - now

    async def _attempt(self, due: Due, receiver: str) -> None:
        structlog.contextvars.bind_contextvars(job_id=due.job_id, receiver=receiver)
        try:
            attempt = await self._deliveries.begin(due)
            if attempt is not None:
                await self._finish(attempt, await self._send(attempt, due.callback_url))
        except LedgerUnavailable as error:  # The lease runs out, and another attempt is made.
            log.warning("delivery.left_to_lease", error=str(error))

    async def _send(self, attempt: Begun, url: str) -> Report:
        began = time.monotonic()
        try:
            reply = await self._tell(attempt.job_id, url)
        except asyncio.CancelledError:
            return Report(error=AttemptError.INTERRUPTED, outcome=Outcome.RETRY, retry_in=0, next_step=attempt.step)
        except LedgerUnavailable:
            raise
        except Exception:
            log.exception("delivery.broke")
            reply = Reply(error=AttemptError.INTERNAL)
        seconds = round(time.monotonic() - began, 3)
        return plan(reply, attempt.step, self._schedule).model_copy(update={"seconds": seconds})

    async def _tell(self, job_id: str, url: str) -> Reply:
        job = await self._ledger.submissions.get(job_id)
        if job is None:
            raise LookupError("the record has gone, although a delivery keeps it")
        body = WebhookView.of(job, self._texts()).model_dump_json().encode()
        return await self._sender.send(url, job_id, body, datetime.now(UTC))

    async def _finish(self, attempt: Begun, report: Report) -> None:
        if not await self._deliveries.end(attempt, report):
            log.warning("delivery.lease_lost", attempt=attempt.number)
            return
        level = log.info if report.outcome is Outcome.DELIVERED else log.warning
        level(
            "delivery.attempted",
            attempt=attempt.number,
            outcome=report.outcome,
            status=report.status,
            error=report.error,
            retry_in=report.retry_in,
        )
