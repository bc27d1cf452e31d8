"""The services that routes depend on, and the request headers that several routes read."""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Query, Request

from api.admission import Admission
from api.http.problems import invalid
from api.metrics import Metrics
from api.settings import ApiSettings
from api.version_skew import VersionSkew
from jobs.backlog import BacklogReader
from jobs.broker.queue import JobQueue
from jobs.deliveries import Deliveries
from jobs.errors import LedgerUnavailable
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from kit.address import AddressGuard
from pipeline.knowledge.knowledge import Knowledge
from pipeline.knowledge.watch import Watch
from pipeline.settings import PipelineSettings
from pipeline.storage import Store

WAIT_PREFERENCE = re.compile(r"wait\s*=\s*([0-9]{1,9})", re.IGNORECASE)
SECONDS_PER_UNIT = {"s": 1, "m": 60}

Value = TypeVar("Value")


@dataclass(frozen=True)
class Services:
    """One per application, shared by all requests."""

    settings: ApiSettings
    jobs: JobsSettings
    pipeline: PipelineSettings
    watch: Watch[Knowledge]
    version_skew: VersionSkew
    guard: AddressGuard
    metrics: Metrics
    ledger: Ledger
    deliveries: Deliveries
    feed: Feed
    queue: JobQueue
    store: Store
    backlog_reader: BacklogReader
    admission: Admission

    @property
    def knowledge(self) -> Knowledge:
        """Texts and rules in use now. They may change between two reads: read once where two things must match."""
        return self.watch.knowledge

    async def models(self) -> tuple[str, ...]:
        """Names that a request may give as its model: the models of the live workers."""
        return tuple(sorted({model for beat in await self.ledger.fleet.workers() for model in beat.models}))


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Same key and same body: the same job. Same key and another body: 409.",
    ),
]
Prefer = Annotated[
    str | None,
    Header(alias="Prefer", description="`wait=N`: up to N seconds (60 at most), answer with the finished job."),
]
CancelAfter = Annotated[
    str | None,
    Header(
        alias="Cancel-After",
        pattern=r"^[0-9]{1,6}[sm]$",
        description="The job's deadline: seconds or minutes, as `90s` or `5m`.",
    ),
]
Wait = Annotated[
    float, Query(alias="wait", ge=0, allow_inf_nan=False, description="Seconds to wait for the end; 60 at most.")
]


CacheControl = Annotated[
    str | None,
    Header(alias="Cache-Control", description="`no-cache`: look at the photo anew, even if the answer is known."),
]


def is_no_cache(cache_control: str | None) -> bool:
    return "no-cache" in {part.strip().lower() for part in (cache_control or "").split(",")}


async def with_timeout(work: Awaitable[Value], seconds: float) -> Value:
    """Limits the whole of `work`: each of its steps may wait up to its own limit. Raises LedgerUnavailable."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise LedgerUnavailable("no answer in time") from error


def public_origin(request: Request, services: Services) -> str:
    """The API's own origin: API_PUBLIC_URL, else the one of the request."""
    return services.settings.public_url or str(request.base_url).rstrip("/")


def is_async_preferred(prefer: str | None) -> bool:
    """`Prefer: respond-async` (RFC 7240)."""
    return "respond-async" in {each.partition(";")[0].strip().lower() for each in (prefer or "").split(",")}


def preferred_wait_seconds(prefer: str | None) -> int:
    """Seconds from `Prefer: wait=N`; 0 without one. Unknown preferences are ignored (RFC 7240)."""
    for preference in (prefer or "").split(","):
        if match := WAIT_PREFERENCE.fullmatch(preference.partition(";")[0].strip()):
            return int(match[1])
    return 0


def deadline_seconds(cancel_after: str | None, jobs: JobsSettings) -> float:
    """The job's deadline, from a valid `Cancel-After` header. Raises Problem when it is out of bounds."""
    if cancel_after is None:
        return jobs.job_deadline
    seconds = float(cancel_after[:-1]) * SECONDS_PER_UNIT[cancel_after[-1]]
    if not 1 <= seconds <= jobs.max_deadline:
        raise invalid("header.Cancel-After", f"Allowed are 1s to {jobs.max_deadline:g}s")
    return seconds
