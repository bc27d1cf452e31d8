"""About the service itself: health, readiness, metrics, the error catalogue, the pipeline in use."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated

from fastapi import Query, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.deps import Services, ServicesDep
from api.http import openapi
from api.http.openapi import ok, problems
from api.http.problems import ALL_CODES
from api.http.responses import json_response
from api.paths import API
from api.schemas.errors import CatalogueEntryView
from api.schemas.service import CheckView, HealthView, PipelineView, ReadinessView, WorkerView
from api.schemas.usage import UsageView
from jobs.errors import LedgerUnavailable, QueueUnavailable
from jobs.model import WorkerBeat
from jobs.usage import DAYS_KEPT, UsageReader
from pipeline.errors import ErrorSpec
from pipeline.knowledge.texts import Texts
from pipeline.types import Locale

CHECK_SECONDS = 4.0
"""Limit for one check of readiness, just above the Redis clients' own timeouts."""

MAX_DETAIL_LENGTH = 300
"""Characters of a refused edit's mistakes in a check; the log and /api/v1/pipeline have the full text."""

UNKNOWN = "unknown: the ledger cannot be reached"

router = openapi.router("", "meta")


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", responses={200: ok(HealthView, "The process lives")})
async def healthz() -> Response:
    """Looks at nothing but this process, so that trouble in Redis restarts no API."""
    return json_response(HealthView())


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={200: ok(ReadinessView, "Ready"), 503: ok(ReadinessView, "Not ready, and why not")})
async def readyz(services: ServicesDep) -> Response:
    """Ready when broker and ledger answer, a worker lives, and all workers have this process's pipeline version.

    Other versions count after API_VERSION_GRACE only, so that a rollout takes out no API. A refused edit never counts:
    the version before it goes on answering.
    """
    ledger, broker, live = await asyncio.gather(
        _check(services.ledger.check()), _check(services.queue.ping()), _live_workers(services)
    )
    checks = {
        "ledger": ledger,
        "broker": broker,
        "workers": _check_workers(live),
        "versions": _check_versions(live, services),
        "resources": _check_resources(live, services),
    }
    ready = all(check.ok for check in checks.values() if check.blocking)
    view = ReadinessView(ready=ready, pipeline_version=services.knowledge.version, checks=checks)
    return json_response(view, status=200 if ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(services: ServicesDep) -> Response:
    """For Prometheus."""
    figures = await services.metrics.render(
        services.ledger, services.backlog_reader, services.deliveries, services.watch, services.jobs.model_budget_usd
    )
    return Response(figures, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(f"{API}/errors", responses={200: ok(list[CatalogueEntryView], "Every code there is")})
async def errors(services: ServicesDep) -> Response:
    """The catalogue: each code with its HTTP status, whether a retry can help, and its texts."""
    texts = services.knowledge.texts
    return json_response([_catalogue_entry(spec, texts).model_dump(mode="json") for spec in ALL_CODES.values()])


@router.get(f"{API}/pipeline", responses={200: ok(PipelineView, "The pipeline in use")})
async def pipeline(services: ServicesDep) -> Response:
    """Which resources and models answer, here and in each worker, and whether the files have changed since."""
    on_disk = await services.watch.version_on_disk()
    knowledge = services.knowledge
    workers = await _worker_views(services)
    return json_response(
        PipelineView(
            pipeline_version=knowledge.version,
            on_disk=on_disk,
            stale=on_disk != knowledge.version,
            refusal=services.watch.refusal,
            fingerprints=dict(knowledge.fingerprints),
            models=tuple(sorted({model for worker in workers or () for model in worker.models})),
            workers=workers,
        )
    )


@router.get(f"{API}/usage", responses={200: ok(UsageView, "What was spent"), **problems(422, 503)})
async def usage(
    services: ServicesDep,
    days: Annotated[int, Query(ge=1, le=DAYS_KEPT, description="So many days (UTC), today included.")] = 7,
) -> Response:
    """What calls of hosted models have cost, by day and by model, and what is left of today's budget."""
    return json_response(UsageView.of(await UsageReader(services.ledger).days(days), services.jobs))


async def _check(ping: Awaitable[None]) -> CheckView:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await ping
    except TimeoutError:
        return CheckView(ok=False, detail="no answer in time")
    except (LedgerUnavailable, QueueUnavailable) as error:
        return CheckView(ok=False, detail=f"not usable: {error}")
    return CheckView(ok=True, detail="answers")


async def _live_workers(services: Services) -> list[WorkerBeat] | None:
    """None when the ledger cannot be reached."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await services.ledger.fleet.workers()
    except (LedgerUnavailable, TimeoutError):
        return None


def _check_workers(live: list[WorkerBeat] | None) -> CheckView:
    if live is None:
        return CheckView(ok=False, detail=UNKNOWN)
    return CheckView(ok=bool(live), detail=f"{len(live)} live" if live else "no live worker")


def _check_versions(live: list[WorkerBeat] | None, services: Services) -> CheckView:
    if live is None:
        return CheckView(ok=False, blocking=False, detail=UNKNOWN)
    mine = services.knowledge.version
    theirs = {beat.pipeline_version for beat in live}
    overdue = services.version_skew.is_overdue(mine, theirs)
    if others := sorted(theirs - {mine}):
        detail = f"workers with another pipeline version: {', '.join(others)}"
        return CheckView(ok=False, blocking=overdue, detail=detail)
    return CheckView(ok=True, detail="one for all")


def _check_resources(live: list[WorkerBeat] | None, services: Services) -> CheckView:
    by = [("api", services.watch.refusal), *((beat.worker, beat.refusal) for beat in live or ())]
    refused = [f"{name} refused {refusal.version}: {_shortened(refusal.detail)}" for name, refusal in by if refusal]
    return CheckView(ok=not refused, blocking=False, detail="; ".join(refused) or "as on disk, or not yet looked at")


def _shortened(detail: str) -> str:
    text = " ".join(detail.split())
    return text if len(text) <= MAX_DETAIL_LENGTH else f"{text[:MAX_DETAIL_LENGTH]} …"


async def _worker_views(services: Services) -> list[WorkerView] | None:
    """None when the ledger cannot be reached."""
    try:
        return [_worker_view(beat) for beat in await services.ledger.fleet.workers()]
    except LedgerUnavailable:
        return None


def _worker_view(beat: WorkerBeat) -> WorkerView:
    return WorkerView.model_validate(beat.model_dump(exclude={"concurrency"}))


def _catalogue_entry(spec: ErrorSpec, texts: Texts) -> CatalogueEntryView:
    return CatalogueEntryView(
        code=spec.code,
        status=spec.status,
        retryable=spec.retryable,
        blame=spec.blame,
        raised_when=spec.raised_when,
        messages={locale: texts.error(spec.code, locale) for locale in Locale},
    )
