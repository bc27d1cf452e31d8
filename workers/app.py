"""`build_celery()`: the Celery application of a worker process: its settings, its task, its one Pipeline."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.worker import worker as celery_worker
from celery.signals import setup_logging

from jobs.broker.message import RUN_JOB
from jobs.broker.options import consumer_settings
from jobs.broker.queue import JobQueue
from jobs.circuit import CircuitStore
from jobs.deliveries import Deliveries
from jobs.drafts import DraftStore
from jobs.errors import LedgerUnavailable
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
from workers.execute.gate import REFRESH_EVERY, CircuitBreaker
from workers.execute.leases import Leases
from workers.execute.runner import JobRunner
from workers.maintenance import heartbeat
from workers.maintenance.heartbeat import Heartbeat
from workers.maintenance.periodic import run_periodically
from workers.maintenance.sweep import EVERY, Rescuer, expire_overdue, resend_due
from workers.runtime import channel
from workers.settings import WorkerSettings
from workers.webhooks.dispatcher import Deliverer
from workers.webhooks.sender import WebhookSender

EXPIRE_UPLOADS_EVERY = 300.0
PROBE_MARGIN = 5.0
"""Seconds beyond the longest model call, for a worker to say how it ended."""

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

    def start(self, argv: list[str]) -> None:
        # Celery's own loads the commands of all plug-ins, Flower's and a shell's: 0.25 of the 1.65 s of CPU of a start.
        if argv[:1] == [celery_worker.name]:
            celery_worker.main(argv[1:], standalone_mode=False, obj=CLIContext(self, no_color=False, workdir=None))
        else:
            super().start(argv)

    async def _run_job(self, job_id: str) -> None:
        assert self._runner is not None  # noqa: S101 - the pool enters `lifespan` first
        await self._runner.run(job_id)

    @asynccontextmanager
    async def lifespan(self, concurrency: int) -> AsyncIterator[None]:
        """Open what the jobs share, on the loop that they run on."""
        ledger = Ledger.connect(self._settings)
        queue = JobQueue.connect(self._settings)
        leases = Leases(ledger.claims, self._settings.lease)
        gate = CircuitBreaker(
            CircuitStore(ledger),
            probe_seconds=self._pipeline_settings.model_timeout + PROBE_MARGIN,
            per_minute=self._worker_settings.model_rpm,
            budget=Budget(self._settings.model_budget_usd, self._settings.model_budget_exceeded),
        )
        pipeline = build_pipeline(self._pipeline_settings, gate)
        watch = Watch(self._pipeline_settings.resources, pipeline.knowledge, pipeline, pipeline.with_knowledge)
        self._runner = JobRunner(
            *(ledger, DraftStore(ledger), leases, lambda: watch.made, self._settings.result_cache_ttl),
            fallback=self._worker_settings.fallback_model,
            over_budget=LOCAL if self._settings.model_budget_exceeded is OverBudget.LOCAL else None,
        )
        worker = f"{socket.gethostname()}:{os.getpid()}"
        heart = Heartbeat(ledger, partial(_beat, worker, watch, concurrency))
        leadership = Leadership(ledger, worker)
        rescuer = Rescuer(ledger, self._settings.lease)
        background = [
            asyncio.create_task(run_periodically(name, every, work), name=name)
            for name, every, work in (
                ("leases", leases.every, leases.renew_all),
                ("leadership", RENEW_EVERY, leadership.seek),
                ("end_late", EVERY, leadership.led(partial(expire_overdue, ledger))),
                ("take_back", EVERY, leadership.led(rescuer.round)),
                ("send_due", EVERY, leadership.led(partial(resend_due, ledger, queue))),
                ("beat", heartbeat.EVERY, heart.beat),
                ("resources", self._pipeline_settings.watch_every, partial(_look, watch, heart)),
                ("gate", REFRESH_EVERY, gate.refresh),
                ("retention", EXPIRE_UPLOADS_EVERY, pipeline.expire_uploads),
            )
        ]
        deliverer = self._deliverer(ledger, watch)
        if self._settings.webhook_keys:  # Without one nothing can be signed: what is due waits for a worker that can.
            background.append(
                asyncio.create_task(run_periodically("deliveries", 0, deliverer.round), name="deliveries")
            )
        gc_tuning.freeze_after_start()
        log.info("worker.ready", pipeline_version=pipeline.version, models=pipeline.models)
        yield
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await deliverer.close()
        with suppress(LedgerUnavailable):
            await asyncio.gather(heart.depart(), leadership.resign())
        await queue.close()
        await pipeline.close()
        await ledger.close()

    def _deliverer(self, ledger: Ledger, watch: Watch[Pipeline]) -> Deliverer:
        sender = WebhookSender.of(self._pipeline_settings, self._settings.webhook_keys)
        schedule = self._settings.webhook_schedule
        return Deliverer(ledger, Deliveries(ledger), sender, lambda: watch.knowledge.texts, schedule)


def _beat(worker: str, watch: Watch[Pipeline], concurrency: int) -> WorkerBeat:
    return WorkerBeat(
        worker=worker,
        pipeline_version=watch.made.version,
        models=watch.made.models,
        concurrency=concurrency,
        stale=watch.is_stale,
        refusal=watch.refusal,
    )


async def _look(watch: Watch[Pipeline], heart: Heartbeat) -> None:
    """Others hear of news at once."""
    if await watch.look():
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
