"""What Prometheus reads at /metrics: requests of this process, and the ledger's own counts of all jobs."""

from collections import Counter as Counted
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

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

log = structlog.get_logger()


class Metrics:
    """A registry of its own, so that two applications in one process do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter(
            "bunri_http_requests", "Requests answered.", (*labels, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "bunri_http_request_seconds", "Time to answer.", labels, buckets=SECONDS, registry=self._registry
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
        """The text format; `budget` is the day's, in US dollars.

        While the ledger cannot be read its figures are absent, and `bunri_ledger_up` is 0.
        """
        shared = CollectorRegistry()
        shared.register(await _read(ledger, backlog_reader, deliveries, watch, budget))
        return generate_latest(self._registry) + generate_latest(shared)


async def _read(
    ledger: Ledger, backlog_reader: BacklogReader, deliveries: Deliveries, watch: Watch[Knowledge], budget: float | None
) -> "_Shared":
    meter = UsageReader(ledger)
    live: list[WorkerBeat] | None
    try:
        live = await ledger.fleet.workers()
        found = [
            *_of_jobs(await ledger.fleet.counts()),
            *_of_line(await backlog_reader.read()),
            *_of_deliveries(await deliveries.counts()),
            *_of_models(await CircuitStore(ledger).figures()),
            *_of_bills(await meter.ever()),
            *_of_budget(budget, await meter.days(1)),
            _now("bunri_ledger_up", 1),
            _now("bunri_workers_live", len(live)),
            _now("bunri_deliveries_open", await deliveries.open()),
            _now("bunri_deliveries_due", await deliveries.due()),
        ]
    except LedgerUnavailable as error:
        log.warning("metrics.ledger_missed", error=str(error))
        live = None
        found = [_now("bunri_ledger_up", 0)]
    return _Shared([*found, *_of_resources(watch, live)])


class _Shared(Collector):
    """Figures that were read already: a collector cannot await."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        return self._found


def _now(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, "Now, as the ledger has it.", value=value)


def _of_jobs(counts: dict[str, int]) -> Iterator[Metric]:
    finished = CounterMetricFamily("bunri_jobs_finished", "Jobs ended, by fate.", labels=("status", "code"))
    for fate, count in sorted(counts.items()):
        status, _, code = fate.partition(":")
        finished.add_metric((status, code), count)
    yield finished


def _of_line(line: Backlog) -> Iterator[Metric]:
    queued = GaugeMetricFamily("bunri_jobs_queued", "Waiting now, by lane.", labels=("priority",))
    queued.add_metric((Priority.INTERACTIVE,), line.interactive)
    queued.add_metric((Priority.BULK,), line.bulk)
    yield from (queued, _now("bunri_jobs_running", line.running), _now("bunri_workers_slots", line.slots))


def _of_deliveries(counts: dict[Outcome, int]) -> Iterator[Metric]:
    attempts = CounterMetricFamily("bunri_delivery_attempts", "Webhook attempts, by outcome.", labels=("outcome",))
    for outcome, count in counts.items():
        attempts.add_metric((outcome,), count)
    yield attempts


def _of_resources(watch: Watch[Knowledge], live: list[WorkerBeat] | None) -> Iterator[Metric]:
    """The label `version` has as many values as there are versions in use at once: one, or two in a rollout."""
    mine = watch.knowledge.version
    used = GaugeMetricFamily("bunri_pipeline_version_info", "Processes that use it.", labels=("process", "version"))
    refused = GaugeMetricFamily("bunri_resources_refused", "Processes that refused an edit.", labels=("process",))
    stale = GaugeMetricFamily("bunri_resources_stale", "Processes with other files on disk.", labels=("process",))
    used.add_metric(("api", mine), 1)
    refused.add_metric(("api",), watch.refusal is not None)
    stale.add_metric(("api",), watch.is_stale)
    if live is not None:
        for version, count in sorted(Counted(beat.pipeline_version for beat in live).items()):
            used.add_metric(("worker", version), count)
        refused.add_metric(("worker",), sum(beat.refusal is not None for beat in live))
        stale.add_metric(("worker",), sum(beat.stale for beat in live))
        yield _now("bunri_workers_other_version", sum(beat.pipeline_version != mine for beat in live))
    yield from (used, refused, stale)


def _of_models(models: list[ModelFigures]) -> Iterator[Metric]:
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


def _of_bills(bills: dict[str, ModelUsage]) -> Iterator[Metric]:
    """Names of models are few: they come from the workers' settings."""
    calls = CounterMetricFamily("bunri_model_calls", "Calls that were paid for.", labels=("model",))
    tokens = CounterMetricFamily("bunri_model_tokens", "Input includes cached.", labels=("model", "kind"))
    dollars = CounterMetricFamily("bunri_model_cost_dollars", "Price of these calls.", labels=("model",))
    for model, bill in bills.items():
        calls.add_metric((model,), bill.calls)
        tokens.add_metric((model, "input"), bill.usage.input_tokens)
        tokens.add_metric((model, "cached"), bill.usage.cached_tokens)
        tokens.add_metric((model, "output"), bill.usage.output_tokens)
        dollars.add_metric((model,), bill.usage.cost_usd)
    yield from (calls, tokens, dollars)


def _of_budget(budget: float | None, today: list[Day]) -> Iterator[Metric]:
    """Nothing without a budget."""
    for day in today:
        if (left := left_of(budget, day.total.usage.cost_usd)) is not None:
            yield _now("bunri_budget_left_dollars", left)
