"""`create_app()`: joins settings, services, routes and middleware. Nothing happens on import."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

from api.admission import Admission
from api.deps import Services
from api.http import openapi, problems
from api.http.middleware import Edge
from api.metrics import Metrics
from api.routes import chat, deliveries, events, images, meta, pages, scans
from api.routes.jobs import job_routes
from api.settings import ApiSettings
from api.version_skew import VersionSkew
from jobs.backlog import BacklogReader
from jobs.broker.queue import JobQueue
from jobs.deliveries import Deliveries
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.model import JobKind
from jobs.settings import JobsSettings
from kit.address import AddressGuard
from kit.logs import configure_logs
from pipeline.knowledge.knowledge import Knowledge
from pipeline.knowledge.watch import Watch
from pipeline.settings import PipelineSettings
from pipeline.storage import Store, open_store

REQUEST_HEADERS = (
    "content-type",
    "x-frontend-origin",
    "idempotency-key",
    "last-event-id",
    "prefer",
    "cancel-after",
    "cache-control",
    "x-request-id",
    "traceparent",
)
EXPOSED_HEADERS = (
    "location",
    "retry-after",
    "x-trace-id",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
)

log = structlog.get_logger()


def create_app() -> FastAPI:
    """For `uvicorn api.app:create_app --factory`: settings from the environment, logs to stderr.

    Raises pydantic's ValidationError with all mistakes in the settings, ValueError with those in the resources.
    """
    settings = ApiSettings()
    configure_logs(settings.log_level, process="api")
    return build_app(settings, JobsSettings(), PipelineSettings())


def build_app(settings: ApiSettings, jobs: JobsSettings, pipeline: PipelineSettings) -> FastAPI:
    """The application. It connects at startup, and starts whether or not Redis answers."""
    knowledge = Knowledge.load(pipeline.resources)
    watch = Watch(pipeline.resources, knowledge, knowledge, lambda new: new)
    guard = AddressGuard(pipeline.fetch_allow, pipeline.fetch_ports)
    metrics = Metrics()
    store = open_store(pipeline)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ledger = Ledger.connect(jobs)
        feed = Feed(ledger)
        queue = JobQueue.connect(jobs)
        await feed.start()
        backlog_reader = BacklogReader(ledger)
        app.state.services = Services(
            settings,
            jobs,
            pipeline,
            watch,
            VersionSkew(settings.version_grace),
            guard,
            metrics,
            ledger,
            Deliveries(ledger),
            feed,
            queue,
            store,
            backlog_reader,
            Admission(settings, ledger, backlog_reader, metrics),
        )
        watching = asyncio.create_task(watch.poll(pipeline.watch_every), name="resources")
        log.info("api.started", pipeline_version=watch.knowledge.version)
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await feed.close()
        await queue.close()
        await ledger.close()
        await store.close()

    app = FastAPI(
        title="Bunri",
        description="Photos of waste in, how to dispose of them out.",
        version=version("bunri"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Its spans would hold the queries of links, and looking for a provider costs each request 20 µs.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=_middleware(settings, store, metrics),
    )
    app.state.watch = watch
    problems.install(app)
    app.router.routes += _api_routes()
    pages.install(app)
    deliveries.describe(app)
    openapi.install(app)
    return app


def _middleware(settings: ApiSettings, store: Store, metrics: Metrics) -> list[Middleware]:
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_credentials=True,
            allow_methods=("GET", "POST", "PUT"),
            allow_headers=REQUEST_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        ),
        Middleware(
            Edge,
            max_body_bytes=settings.max_body_bytes,
            upload_origin=store.upload_origin or settings.public_url,
            metrics=metrics,
        ),
    ]


def _api_routes() -> list[BaseRoute]:
    """One flat list: FastAPI 0.165 matches an included router twice for each request."""
    routers = (
        scans.router,
        job_routes(JobKind.SCAN),
        events.event_routes(JobKind.SCAN),
        chat.router,
        job_routes(JobKind.CHAT),
        events.event_routes(JobKind.CHAT),
        deliveries.router,
        images.router,
        meta.router,
    )
    return [route for router in routers for route in router.routes]
