"""Prometheus metrics: requests of this process, and the ledger's counts of all jobs."""

from collections import Counter as CountOf
from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.backlog import Backlog, BacklogReader
from jobs.circuit import CAUSES, CircuitStore, ModelFigures
from jobs.deliveries import Deliveries, Outcome
from jobs.errors import LedgerUnavailable
from jobs.ledger.ledger import Ledger
from jobs.model import Priority, WorkerBeat
from jobs.usage import Day, ModelUsage, UsageReader, left_of
from pipeline.knowledge.knowledge import Knowledge
from pipeline.knowledge.watch import Watch

BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

log = structlog.get_logger()


class Metrics:
    """Has a registry of its own, so that two applications in one process do not share counters."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter(
            "bunri_http_requests", "Requests answered.", (*labels, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "bunri_http_request_seconds", "Time to answer.", labels, buckets=BUCKETS_SECONDS, registry=self._registry
        )
        self._refused = Counter(
            "bunri_submits_refused", "Jobs not taken, by reason.", ("reason",), registry=self._registry
        )

    def count_refusal(self, reason: str) -> None:
        """`reason` is one of `api.admission.Reason`."""
        self._refused.labels(reason).inc()

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    async def render(
        self,
        ledger: Ledger,
        backlog_reader: BacklogReader,
        deliveries: Deliveries,
        watch: Watch[Knowledge],
        budget: float | None,
    ) -> bytes:
        """The text exposition format; `budget` is the daily one, in US dollars.

        While the ledger cannot be read its metrics are absent, and `bunri_ledger_up` is 0.
        """
        ledger_registry = CollectorRegistry()
        ledger_registry.register(await _read_ledger(ledger, backlog_reader, deliveries, watch, budget))
        return generate_latest(self._registry) + generate_latest(ledger_registry)


async def _read_ledger(
    ledger: Ledger, backlog_reader: BacklogReader, deliveries: Deliveries, watch: Watch[Knowledge], budget: float | None
) -> "_ReadyMetrics":
    usage_reader = UsageReader(ledger)
    live: list[WorkerBeat] | None
    try:
        live = await ledger.fleet.workers()
        metrics = [
            *_job_metrics(await ledger.fleet.counts()),
            *_backlog_metrics(await backlog_reader.read()),
            *_delivery_metrics(await deliveries.counts()),
            *_circuit_metrics(await CircuitStore(ledger).figures()),
            *_usage_metrics(await usage_reader.ever()),
            *_budget_metrics(budget, await usage_reader.days(1)),
            _gauge("bunri_ledger_up", 1),
            _gauge("bunri_workers_live", len(live)),
            _gauge("bunri_deliveries_open", await deliveries.open()),
            _gauge("bunri_deliveries_due", await deliveries.due()),
        ]
    except LedgerUnavailable as error:
        log.warning("metrics.ledger_missed", error=str(error))
        live = None
        metrics = [_gauge("bunri_ledger_up", 0)]
    return _ReadyMetrics([*metrics, *_resource_metrics(watch, live)])


class _ReadyMetrics(Collector):
    """Metrics read beforehand: a collector cannot await."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, "Now, as the ledger has it.", value=value)


def _job_metrics(counts: dict[str, int]) -> Iterator[Metric]:
    finished = CounterMetricFamily("bunri_jobs_finished", "Jobs ended, by fate.", labels=("status", "code"))
    for fate, count in sorted(counts.items()):
        status, _, code = fate.partition(":")
        finished.add_metric((status, code), count)
    yield finished


def _backlog_metrics(backlog: Backlog) -> Iterator[Metric]:
    queued = GaugeMetricFamily("bunri_jobs_queued", "Waiting now, by lane.", labels=("priority",))
    queued.add_metric((Priority.INTERACTIVE,), backlog.interactive)
    queued.add_metric((Priority.BULK,), backlog.bulk)
    yield from (queued, _gauge("bunri_jobs_running", backlog.running), _gauge("bunri_workers_slots", backlog.slots))


def _delivery_metrics(counts: dict[Outcome, int]) -> Iterator[Metric]:
    attempts = CounterMetricFamily("bunri_delivery_attempts", "Webhook attempts, by outcome.", labels=("outcome",))
    for outcome, count in counts.items():
        attempts.add_metric((outcome,), count)
    yield attempts


def _resource_metrics(watch: Watch[Knowledge], live: list[WorkerBeat] | None) -> Iterator[Metric]:
    """The label `version` has one value for each version in use: one, or two in a rollout."""
    mine = watch.knowledge.version
    used = GaugeMetricFamily("bunri_pipeline_version_info", "Processes that use it.", labels=("process", "version"))
    refused = GaugeMetricFamily("bunri_resources_refused", "Processes that refused an edit.", labels=("process",))
    stale = GaugeMetricFamily("bunri_resources_stale", "Processes with other files on disk.", labels=("process",))
    used.add_metric(("api", mine), 1)
    refused.add_metric(("api",), watch.refusal is not None)
    stale.add_metric(("api",), watch.is_stale)
    if live is not None:
        for version, count in sorted(CountOf(beat.pipeline_version for beat in live).items()):
            used.add_metric(("worker", version), count)
        refused.add_metric(("worker",), sum(beat.refusal is not None for beat in live))
        stale.add_metric(("worker",), sum(beat.stale for beat in live))
        yield _gauge("bunri_workers_other_version", sum(beat.pipeline_version != mine for beat in live))
    yield from (used, refused, stale)


def _circuit_metrics(models: list[ModelFigures]) -> Iterator[Metric]:
    paused = GaugeMetricFamily("bunri_model_paused", "1 while no call is made.", labels=("model", "cause"))
    left = GaugeMetricFamily("bunri_model_pause_seconds", "Until the next probe.", labels=("model",))
    pauses = CounterMetricFamily("bunri_model_pauses", "Pauses begun.", labels=("model",))
    probes = CounterMetricFamily("bunri_model_probes", "Calls that tried whether one is over.", labels=("model",))
    refused = CounterMetricFamily("bunri_model_refused", "Calls not made: paused, or limited.", labels=("model",))
    for each in models:
        for cause in CAUSES:
            paused.add_metric((each.model, cause), each.cause == cause)
        left.add_metric((each.model,), each.seconds)
        pauses.add_metric((each.model,), each.pauses)
        probes.add_metric((each.model,), each.probes)
        refused.add_metric((each.model,), each.rejected)
    yield from (paused, left, pauses, probes, refused)


def _usage_metrics(usages: dict[str, ModelUsage]) -> Iterator[Metric]:
    """The label `model` has few values: they come from the workers' settings."""
    calls = CounterMetricFamily("bunri_model_calls", "Calls that were paid for.", labels=("model",))
    tokens = CounterMetricFamily("bunri_model_tokens", "Input includes cached.", labels=("model", "kind"))
    dollars = CounterMetricFamily("bunri_model_cost_dollars", "Price of these calls.", labels=("model",))
    for model, usage in usages.items():
        calls.add_metric((model,), usage.calls)
        tokens.add_metric((model, "input"), usage.usage.input_tokens)
        tokens.add_metric((model, "cached"), usage.usage.cached_tokens)
        tokens.add_metric((model, "output"), usage.usage.output_tokens)
        dollars.add_metric((model,), usage.usage.cost_usd)
    yield from (calls, tokens, dollars)


def _budget_metrics(budget: float | None, today: list[Day]) -> Iterator[Metric]:
    """No metric without a budget."""
    for day in today:
        if (left := left_of(budget, day.total.usage.cost_usd)) is not None:
            yield _gauge("bunri_budget_left_dollars", left)
