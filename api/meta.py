"""About the service itself: health, readiness, metrics, the error catalogue, the pipeline in use."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.deps import Services, Wired
from api.description import ok, problems
from api.problems import ALL_CODES
from api.responses import json_response
from api.schemas import (
    API,
    CatalogueEntryView,
    CheckView,
    HealthView,
    PipelineView,
    ReadinessView,
    UsageView,
    WorkerView,
)
from pipeline.errors import ErrorSpec
from pipeline.texts import Texts, fingerprints, pipeline_version
from pipeline.types import Locale
from workers.jobs.connection import LedgerUnavailable
from workers.jobs.model import WorkerBeat
from workers.jobs.queue import QueueUnavailable
from workers.jobs.usage import DAYS_KEPT, Meter

CHECK_SECONDS = 4.0
"""Limit for one check of readiness, just above the clients' own."""

router = APIRouter(tags=["meta"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", responses={200: ok(HealthView, "The process lives")})
async def healthz() -> Response:
    """Looks at nothing but this process, so that trouble in Redis restarts no API."""
    return json_response(HealthView())


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={200: ok(ReadinessView, "Ready"), 503: ok(ReadinessView, "Not ready, and why not")})
async def readyz(services: Wired) -> Response:
    """Ready when broker and ledger answer, a worker lives, and all workers have this process's pipeline version."""
    ledger, broker, workers = await asyncio.gather(
        _check(services.ledger.check()), _check(services.queue.ping()), _check_workers(services)
    )
    checks = {"ledger": ledger, "broker": broker, "workers": workers}
    ready = all(check.ok for check in checks.values())
    view = ReadinessView(ready=ready, pipeline_version=services.knowledge.version, checks=checks)
    return json_response(view, status=200 if ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(services: Wired) -> Response:
    """For Prometheus."""
    figures = await services.metrics.render(
        services.ledger, services.lookout, services.deliveries, services.jobs.model_budget_usd
    )
    return Response(figures, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(f"{API}/errors", responses={200: ok(list[CatalogueEntryView], "Every code there is")})
async def errors(services: Wired) -> Response:
    """The catalogue: each code with its HTTP status, whether a retry can help, and its texts."""
    texts = services.knowledge.texts
    return json_response([_entry(spec, texts).model_dump(mode="json") for spec in ALL_CODES.values()])


@router.get(f"{API}/pipeline", responses={200: ok(PipelineView, "The pipeline in use")})
async def pipeline(services: Wired) -> Response:
    """Which resources and models answer, here and in each worker, and whether the files have changed since."""
    on_disk = pipeline_version(await asyncio.to_thread(fingerprints, services.pipeline.resources))
    version = services.knowledge.version
    workers = await _workers(services)
    return json_response(
        PipelineView(
            pipeline_version=version,
            on_disk=on_disk,
            stale=on_disk != version,
            fingerprints=services.knowledge.fingerprints,
            models=tuple(sorted({model for worker in workers or () for model in worker.models})),
            workers=workers,
        )
    )


@router.get(f"{API}/usage", responses={200: ok(UsageView, "What was spent"), **problems(422, 503)})
async def usage(
    services: Wired,
    days: Annotated[int, Query(ge=1, le=DAYS_KEPT, description="So many days (UTC), today included.")] = 7,
) -> Response:
    """What calls of hosted models have cost, by day and by model, and what is left of today's budget."""
    return json_response(UsageView.of(await Meter(services.ledger).days(days), services.jobs))


async def _check(ping: Awaitable[None]) -> CheckView:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await ping
    except TimeoutError:
        return CheckView(ok=False, detail="no answer in time")
    except (LedgerUnavailable, QueueUnavailable) as error:
        return CheckView(ok=False, detail=f"not usable: {error}")
    return CheckView(ok=True, detail="answers")


async def _check_workers(services: Services) -> CheckView:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            live = await services.ledger.workers()
    except (LedgerUnavailable, TimeoutError):
        return CheckView(ok=False, detail="unknown: the ledger cannot be reached")
    if not live:
        return CheckView(ok=False, detail="no live worker")
    if others := sorted({beat.pipeline_version for beat in live} - {services.knowledge.version}):
        return CheckView(ok=False, detail=f"workers with another pipeline version: {', '.join(others)}")
    return CheckView(ok=True, detail=f"{len(live)} live")


async def _workers(services: Services) -> list[WorkerView] | None:
    try:
        return [_worker(beat) for beat in await services.ledger.workers()]
    except LedgerUnavailable:
        return None


def _worker(beat: WorkerBeat) -> WorkerView:
    return WorkerView(worker=beat.worker, pipeline_version=beat.pipeline_version, models=beat.models)


def _entry(spec: ErrorSpec, texts: Texts) -> CatalogueEntryView:
    return CatalogueEntryView(
        code=spec.code,
        status=spec.status,
        retryable=spec.retryable,
        blame=spec.blame,
        raised_when=spec.raised_when,
        messages={locale: texts.error(spec.code, locale) for locale in Locale},
    )
