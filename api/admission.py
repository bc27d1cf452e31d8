"""Admission of submits: a rate limit for each caller, and a bound on the backlog."""

from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network, ip_address
from math import ceil

from starlette.requests import Request

from api.http.problems import RETRY_AFTER_SECONDS, Problem
from api.metrics import Metrics
from api.settings import ApiSettings
from jobs.backlog import Backlog, BacklogReader
from jobs.ledger.ledger import Ledger
from jobs.model import NewJob
from jobs.rate_limit import Allowance, RateLimit

MAX_RETRY_AFTER_SECONDS = 300


class Reason(StrEnum):
    """Label of the metric of refused submits."""

    RATE = "rate"
    DEPTH = "depth"
    DEADLINE = "deadline"


class Admission:
    """One for each application."""

    def __init__(self, settings: ApiSettings, ledger: Ledger, backlog_reader: BacklogReader, metrics: Metrics) -> None:
        self._max_queued = settings.max_queued
        self._ledger = ledger
        self._backlog_reader = backlog_reader
        self._metrics = metrics
        self._rate: RateLimit | None = None
        if settings.rate_limit:
            self._rate = RateLimit(ledger, per_minute=settings.rate_limit, burst=settings.rate_burst)

    async def count(self, request: Request) -> dict[str, str]:
        """Count a submit of this caller, also a repeat. Returns the `RateLimit-*` headers; none without a limit.

        Raises Problem `request.rate_limited`.
        """
        if self._rate is None:
            return {}
        allowance = await self._rate.take(rate_limit_key(request))
        headers = _rate_headers(allowance, self._rate.burst)
        if not allowance.passes:
            self._metrics.count_refusal(Reason.RATE)
            raise Problem("request.rate_limited", headers=headers | _retry_after(allowance.retry_after))
        return headers

    async def join(self, job: NewJob, idempotency_key: str | None) -> Backlog:
        """The line that a new job may join. A repeat is always admitted.

        Raises Problem `queue.saturated`. Not atomic: concurrent submits may exceed the limit by their number.
        """
        backlog = await self._backlog_reader.read()
        refusal = self._refusal(backlog, job)
        if refusal is None or (idempotency_key and await self._ledger.submissions.knows(idempotency_key)):
            return backlog
        reason, retry_after = refusal
        self._metrics.count_refusal(reason)
        raise Problem("queue.saturated", headers=_retry_after(retry_after))

    def _refusal(self, backlog: Backlog, job: NewJob) -> tuple[Reason, float] | None:
        """Why the job may not join, and after how many seconds it may, at the present pace. None if it may."""
        ahead = backlog.jobs_ahead(job.priority)
        wait = backlog.wait(job.priority, ahead)
        if ahead >= self._max_queued:
            longest = backlog.wait(job.priority, self._max_queued - 1)
            return Reason.DEPTH, RETRY_AFTER_SECONDS if wait is None or longest is None else wait - longest
        if wait is not None and wait > job.deadline:
            return Reason.DEADLINE, wait - job.deadline
        return None


def rate_limit_key(request: Request) -> str:
    """The key of the rate limit: the client's address; for IPv6 its /64, which belongs to one customer.

    Behind a trusted proxy (FORWARDED_ALLOW_IPS) it is the address that the proxy forwards, else the peer's.
    """
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host)
    except ValueError:  # A proxy may forward any text.
        return host[:64]
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), 64), strict=False))


def _rate_headers(allowance: Allowance, burst: int) -> dict[str, str]:
    """The three fields of the IETF draft's versions up to 07, which clients and gateways know."""
    return {
        "RateLimit-Limit": str(burst),
        "RateLimit-Remaining": str(allowance.remaining),
        "RateLimit-Reset": str(ceil(allowance.reset_in)),
    }


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(min(MAX_RETRY_AFTER_SECONDS, max(1, ceil(seconds))))}
