"""`build_celery()`: the Celery application of a worker process: its settings, its task, its one Pipeline."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import structlog
from celery import Celery
from celery.exceptions import Reject
from celery.signals import setup_logging

from jobs.broker.message import RUN_JOB
from jobs.broker.options import consumer_settings
from jobs.broker.queue import JobQueue
from jobs.circuit import CircuitStore
from jobs.deliveries import Deliveries
from jobs.errors import LedgerUnavailable
from jobs.feed.drafts import DraftStore
from jobs.leadership import RENEW_EVERY, Leadership
from jobs.ledger.ledger import Ledger
from jobs.model import OverBudget, WorkerBeat
from jobs.settings import JobsSettings
from kit import gc_tuning
from kit.logs import configure_logs
from pipeline.build import build_pipeline
from pipeline.knowledge.watch import Watch
from pipeline.models import LOCAL
from pipeline.run import Pipeline
from pipeline.settings import PipelineSettings
from workers.execute.budget import Budget
from workers.execute.gate import CIRCUIT_REFRESH_INTERVAL_SECONDS, CircuitBreaker
from workers.execute.leases import Leases
from workers.execute.runner import JobRunner
from workers.maintenance.heartbeat import HEARTBEAT_INTERVAL_SECONDS, Heartbeat
from workers.maintenance.periodic import run_periodically
from workers.maintenance.sweep import SWEEP_INTERVAL_SECONDS, Rescuer, expire_overdue, resend_due
from workers.runtime import channel
from workers.settings import WorkerSettings
from workers.webhooks.dispatcher import Dispatcher
from workers.webhooks.sender import WebhookSender

UPLOAD_EXPIRY_INTERVAL_SECONDS = 300.0
PROBE_MARGIN_SECONDS = 5.0
"""A probe may end this much later than the longest model call: its worker still has to report it."""

Work = tuple[str, float, Callable[[], Awaitable[object]]]
"""Background work: its name, the seconds between two rounds, one round."""

log = structlog.get_logger()


class BunriWorker(Celery):  # type: ignore[misc]  # Celery ships no types
    """A Celery application whose tasks run on the asyncio pool, inside `lifespan`."""

    def __init__(
        self, settings: JobsSettings, pipeline_settings: PipelineSettings, worker_settings: WorkerSettings
    ) -> None:
        super().__init__("bunri")
        self.drain = settings.drain
        self._settings = settings
        self._pipeline_settings = pipeline_settings
        self._worker_settings = worker_settings
        self._runner: JobRunner | None = None
        self.task(name=RUN_JOB, acks_late=True, ignore_result=True)(self._run_job)

    async def _run_job(self, job_id: str) -> None:
        assert self._runner is not None  # noqa: S101 - the pool enters `lifespan` first
        try:
            await self._runner.run(job_id)
        except asyncio.CancelledError:  # This process stops; the message goes back to the queue for another worker.
            raise Reject(requeue=True) from None

    @asynccontextmanager
    async def lifespan(self, concurrency: int) -> AsyncIterator[None]:
        """Open what all jobs share, on the loop that runs them; at the end close it in reverse order."""
        async with AsyncExitStack() as closing:
            ledger = Ledger.connect(self._settings)
            closing.push_async_callback(ledger.close)
            gate = self._circuit_breaker(ledger)
            pipeline = build_pipeline(self._pipeline_settings, gate)
            closing.push_async_callback(pipeline.close)
            watch = Watch(self._pipeline_settings.resources, pipeline.knowledge, pipeline, pipeline.with_knowledge)
            queue = JobQueue.connect(self._settings)
            closing.push_async_callback(queue.close)
            leases = Leases(ledger.claims, self._settings.lease)
            self._runner = self._job_runner(ledger, leases, watch)

            worker = f"{socket.gethostname()}:{os.getpid()}"
            heart = Heartbeat(ledger, partial(_beat, worker, watch, concurrency))
            leadership = Leadership(ledger, worker)
            closing.push_async_callback(_leave, heart, leadership)
            dispatcher = self._dispatcher(ledger, watch)
            closing.push_async_callback(dispatcher.close)
            work: list[Work] = [
                ("leases", leases.renew_interval, leases.renew_all),
                ("circuit_breaker", CIRCUIT_REFRESH_INTERVAL_SECONDS, gate.refresh),
                ("heartbeat", HEARTBEAT_INTERVAL_SECONDS, heart.beat),
                ("resources", self._pipeline_settings.watch_every, partial(_look, watch, heart)),
                ("upload_expiry", UPLOAD_EXPIRY_INTERVAL_SECONDS, pipeline.expire_uploads),
                *self._sweep(ledger, queue, leadership),
            ]
            if self._settings.webhook_keys:  # Deliveries without a key wait for a worker that can sign them.
                work.append(("deliveries", 0, dispatcher.dispatch_due))
            await closing.enter_async_context(_in_background(work))
            gc_tuning.freeze_after_start()
            log.info("worker.ready", pipeline_version=pipeline.version, models=pipeline.models)
            yield

    def _circuit_breaker(self, ledger: Ledger) -> CircuitBreaker:
        return CircuitBreaker(
            CircuitStore(ledger),
            probe_seconds=self._pipeline_settings.model_timeout + PROBE_MARGIN_SECONDS,
            per_minute=self._worker_settings.model_rpm,
            budget=Budget(self._settings.model_budget_usd, self._settings.model_budget_exceeded),
        )

    def _job_runner(self, ledger: Ledger, leases: Leases, watch: Watch[Pipeline]) -> JobRunner:
        return JobRunner(
            ledger,
            DraftStore(ledger),
            leases,
            lambda: watch.current,
            self._settings.result_cache_ttl,
            fallback=self._worker_settings.fallback_model,
            over_budget=LOCAL if self._settings.model_budget_exceeded is OverBudget.LOCAL else None,
        )

    def _dispatcher(self, ledger: Ledger, watch: Watch[Pipeline]) -> Dispatcher:
        sender = WebhookSender.from_settings(self._pipeline_settings, self._settings.webhook_keys)
        schedule = self._settings.webhook_schedule
        return Dispatcher(ledger, Deliveries(ledger), sender, lambda: watch.knowledge.texts, schedule)

    def _sweep(self, ledger: Ledger, queue: JobQueue, leadership: Leadership) -> list[Work]:
        """The repairs, which one worker of the fleet does for all."""
        rescuer = Rescuer(ledger, self._settings.lease)
        return [
            ("leadership", RENEW_EVERY, leadership.seek),
            ("expire_overdue", SWEEP_INTERVAL_SECONDS, leadership.led(partial(expire_overdue, ledger))),
            ("rescue_stalled", SWEEP_INTERVAL_SECONDS, leadership.led(rescuer.rescue_stalled)),
            ("resend_due", SWEEP_INTERVAL_SECONDS, leadership.led(partial(resend_due, ledger, queue))),
        ]


@asynccontextmanager
async def _in_background(work: Iterable[Work]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(run_periodically(*each), name=each[0]) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _leave(heart: Heartbeat, leadership: Leadership) -> None:
    with suppress(LedgerUnavailable):
        await asyncio.gather(heart.depart(), leadership.resign())


def _beat(worker: str, watch: Watch[Pipeline], concurrency: int) -> WorkerBeat:
    return WorkerBeat(
        worker=worker,
        pipeline_version=watch.current.version,
        models=watch.current.models,
        concurrency=concurrency,
        stale=watch.is_stale,
        refusal=watch.refusal,
    )


async def _look(watch: Watch[Pipeline], heart: Heartbeat) -> None:
    """Send a heartbeat at once when the resources have changed: the API compares the versions of all workers."""
    if await watch.reload_if_changed():
        await heart.beat()


def build_celery() -> BunriWorker:
    """Read the settings and build the application. Raises pydantic's ValidationError with all mistakes at once."""
    settings = JobsSettings()
    worker_settings = WorkerSettings()
    app = BunriWorker(settings, PipelineSettings(), worker_settings)
    app.conf.update(
        consumer_settings(settings, *settings.queues),
        worker_pool="workers.runtime.pool:AsyncioPool",
        worker_consumer="workers.runtime.consumer:Consumer",
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # else an error reply of Redis (disk full, read-only) ends the worker
        task_default_queue=settings.queue,
        task_ignore_result=True,
        task_acks_late=True,
    )
    app.select_queues(settings.queues)
    channel.patch_kombu()
    level = worker_settings.log_level
    setup_logging.connect(lambda **_: configure_logs(level, process="worker"), weak=False)
    return app
