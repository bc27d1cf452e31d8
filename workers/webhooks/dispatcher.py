"""Webhook deliveries: attempt those that are due, record the result, plan the next attempt.

Each attempt is a task. Attempts are limited for the process and for each receiver; deliveries over the limit of their
receiver are rescheduled, so that a receiver that hangs delays no other.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import structlog

from jobs.deliveries import AttemptError, AttemptReport, Begun, Deliveries, Due, Outcome
from jobs.errors import LedgerUnavailable
from jobs.ledger.ledger import Ledger
from jobs.view import WebhookView
from pipeline.knowledge.texts import Texts
from workers.webhooks.sender import ReceiverReply, WebhookSender

POLL_SECONDS = 0.5
"""Pause between two polls for due deliveries; the end of an attempt cuts it short."""

MAX_CONCURRENT = 200
MAX_CONCURRENT_PER_RECEIVER = 10
"""Attempts of one process at the same time: of all, and of those to one receiver."""

RESCHEDULE_STEP_SECONDS = 0.02
MAX_RESCHEDULE_SECONDS = 30.0
"""Deliveries over the per-receiver limit are rescheduled 20 ms apart, as if each of the 10 attempts at a time took
0.2 s; at most 30 s ahead.
"""

SHUTDOWN_GRACE_SECONDS = 1.0
"""Time that running attempts have to end when the process stops."""

log = structlog.get_logger()


def plan(reply: ReceiverReply, step: int, schedule: Sequence[float]) -> AttemptReport:
    """Decide what follows from an attempt's reply. `step`: steps of the schedule that are used up. Pure.

    Retry-After only lengthens the pause, up to the schedule's longest step.
    """
    outcome, retry_in = Outcome.RETRY, None
    if reply.status is not None and 200 <= reply.status < 300:  # noqa: PLR2004 - the successes
        outcome = Outcome.DELIVERED
    elif reply.status == HTTPStatus.GONE:
        outcome = Outcome.STOPPED
    elif step >= len(schedule):
        outcome = Outcome.GAVE_UP
    else:
        retry_in = max(schedule[step], min(reply.retry_after or 0, max(schedule)))
    return AttemptReport(status=reply.status, error=reply.error, outcome=outcome, retry_in=retry_in, next_step=step + 1)


class Dispatcher:
    """One per process, on one event loop. Call `dispatch_due` in a loop. `texts` returns the current ones."""

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
        self._rescheduled_to: dict[str, float] = {}
        self._has_ended = asyncio.Event()

    async def dispatch_due(self) -> None:
        """Wait for POLL_SECONDS or the end of an attempt; then start an attempt of each delivery that is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._has_ended.wait()
        self._has_ended.clear()
        while (room := MAX_CONCURRENT - len(self._attempts)) > 0 and (due := await self._deliveries.take(room)):
            await self._start(due)

    async def close(self) -> None:
        """Give attempts a moment to end; record the rest as interrupted: another worker repeats them at once."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=SHUTDOWN_GRACE_SECONDS)
        for attempt in self._attempts:
            attempt.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        await self._sender.close()

    async def _start(self, deliveries: list[Due]) -> None:
        rescheduled = {}
        for due in deliveries:
            receiver = urlsplit(due.callback_url).netloc
            if self._receivers[receiver] < MAX_CONCURRENT_PER_RECEIVER:
                self._start_one(due, receiver)
            else:
                rescheduled[due.job_id] = self._reschedule_delay(receiver)
        if rescheduled:
            await self._deliveries.put_off(rescheduled)

    def _start_one(self, due: Due, receiver: str) -> None:
        def on_end(attempt: asyncio.Task[None]) -> None:
            self._attempts.discard(attempt)
            self._receivers[receiver] -= 1
            self._receivers += Counter()  # drops those at zero
            self._has_ended.set()

        attempt = asyncio.create_task(self._attempt(due, receiver), name=f"deliver-{due.job_id}")
        self._attempts.add(attempt)
        self._receivers[receiver] += 1
        attempt.add_done_callback(on_end)

    def _reschedule_delay(self, receiver: str) -> float:
        """Seconds until a delivery over its receiver's limit is due again. Each call returns a later time."""
        now = time.monotonic()
        self._rescheduled_to = {name: at for name, at in self._rescheduled_to.items() if at > now}
        at = min(self._rescheduled_to.get(receiver, now) + RESCHEDULE_STEP_SECONDS, now + MAX_RESCHEDULE_SECONDS)
        self._rescheduled_to[receiver] = at
        return at - now

    async def _attempt(self, due: Due, receiver: str) -> None:
        structlog.contextvars.bind_contextvars(job_id=due.job_id, receiver=receiver)
        try:
            attempt = await self._deliveries.begin(due)
            if attempt is not None:
                await self._record(attempt, await self._send(attempt, due.callback_url))
        except LedgerUnavailable as error:  # The lease ends, and a worker makes another attempt.
            log.warning("delivery.left_to_lease", error=str(error))

    async def _send(self, attempt: Begun, url: str) -> AttemptReport:
        began = time.monotonic()
        try:
            reply = await self._post_job(attempt.job_id, url)
        except asyncio.CancelledError:
            return AttemptReport(
                error=AttemptError.INTERRUPTED, outcome=Outcome.RETRY, retry_in=0, next_step=attempt.step
            )
        except LedgerUnavailable:
            raise
        except Exception:
            log.exception("delivery.broke")
            reply = ReceiverReply(error=AttemptError.INTERNAL)
        seconds = round(time.monotonic() - began, 3)
        return plan(reply, attempt.step, self._schedule).model_copy(update={"seconds": seconds})

    async def _post_job(self, job_id: str, url: str) -> ReceiverReply:
        job = await self._ledger.submissions.get(job_id)
        if job is None:
            raise LookupError("the job's record is missing, although its delivery should keep it")
        body = WebhookView.of(job, self._texts()).model_dump_json().encode()
        return await self._sender.send(url, job_id, body, datetime.now(UTC))

    async def _record(self, attempt: Begun, report: AttemptReport) -> None:
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
