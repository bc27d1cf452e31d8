"""Who may submit now: each caller at its own rate, and no more jobs than can be served in time."""

from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network, ip_address
from math import ceil

from starlette.requests import Request

from api.http.problems import RETRY_AFTER, Problem
from api.metrics import Metrics
from api.settings import ApiSettings
from jobs.backlog import Backlog, BacklogReader
from jobs.ledger.ledger import Ledger
from jobs.model import NewJob
from jobs.rate_limit import Allowance, RateLimit

LONGEST_RETRY_AFTER = 300


class Reason(StrEnum):
    """Why a submit was refused, as the metric counts it."""

    RATE = "rate"
    DEPTH = "depth"
    DEADLINE = "deadline"


class Admission:
    """One per application."""

    def __init__(self, settings: ApiSettings, ledger: Ledger, backlog_reader: BacklogReader, metrics: Metrics) -> None:
        self._max_queued = settings.max_queued
        self._ledger = ledger
        self._lookout = backlog_reader
        self._metrics = metrics
        self._rate: RateLimit | None = None
        if settings.rate_limit:
            self._rate = RateLimit(ledger, per_minute=settings.rate_limit, burst=settings.rate_burst)

    async def count(self, request: Request) -> dict[str, str]:
        """Count a submit of this caller. Returns the headers that tell what is left; without a limit there are none.

        Raises Problem `request.rate_limited`. Whether the submit is a repeat does not matter, and is not looked up.
        """
        if self._rate is None:
            return {}
        allowance = await self._rate.take(caller_of(request))
        headers = _rate_headers(allowance, self._rate.burst)
        if not allowance.passes:
            self._metrics.count_refusal(Reason.RATE)
            raise Problem("request.rate_limited", headers=headers | {"Retry-After": _seconds(allowance.retry_after)})
        return headers

    async def join(self, job: NewJob, idempotency_key: str | None) -> Backlog:
        """The line that a new job may join. A repeat gets its job however long the line is.

        Raises Problem `queue.saturated`. Looking and joining are two steps: jobs between them may be too many.
        """
        line = await self._lookout.read()
        refusal = self._refusal(line, job)
        if refusal is None or (idempotency_key and await self._ledger.submissions.knows(idempotency_key)):
            return line
        reason, retry_after = refusal
        self._metrics.count_refusal(reason)
        raise Problem("queue.saturated", headers={"Retry-After": _seconds(retry_after)})

    def _refusal(self, line: Backlog, job: NewJob) -> tuple[Reason, float] | None:
        """Why the job may not join, and in how many seconds it could at the present pace."""
        ahead = line.jobs_ahead(job.priority)
        wait = line.wait(job.priority, ahead)
        if ahead >= self._max_queued:
            longest = line.wait(job.priority, self._max_queued - 1)
            return Reason.DEPTH, RETRY_AFTER if wait is None or longest is None else wait - longest
        if wait is not None and wait > job.deadline:
            return Reason.DEADLINE, wait - job.deadline
        return None


def caller_of(request: Request) -> str:
    """Whose rate counts: the client's address, or the /64 of an IPv6 one, which is all one customer's.

    The address is the one that a proxy named if it is a trusted one (FORWARDED_ALLOW_IPS), else the peer's.
    """
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host)
    except ValueError:  # A proxy's own idea of a name.
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


def _seconds(retry_after: float) -> str:
    return str(min(LONGEST_RETRY_AFTER, max(1, ceil(retry_after))))
