"""What Prometheus reads at /metrics: requests of this process, and the ledger's own counts of all jobs."""

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.jobs.connection import LedgerUnavailable
from workers.jobs.ledger import Ledger
from workers.jobs.upstream import CAUSES, ModelFigures, Upstream

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

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    async def render(self, ledger: Ledger) -> bytes:
        """The text format. While the ledger cannot be read its figures are absent, and `bunri_ledger_up` is 0."""
        shared = CollectorRegistry()
        shared.register(await _read(ledger))
        return generate_latest(self._registry) + generate_latest(shared)


async def _read(ledger: Ledger) -> Collector:
    try:
        counts = await ledger.counts()
        gauges = {
            "bunri_ledger_up": 1,
            "bunri_jobs_queued": await ledger.depth(),
            "bunri_jobs_running": await ledger.running(),
            "bunri_workers_live": len(await ledger.workers()),
        }
        models = await Upstream(ledger).figures()
    except LedgerUnavailable as error:
        log.warning("metrics.ledger_missed", error=str(error))
        return _Shared({}, {"bunri_ledger_up": 0}, [])
    return _Shared(counts, gauges, models)


class _Shared(Collector):
    def __init__(self, counts: dict[str, int], gauges: dict[str, int], models: list[ModelFigures]) -> None:
        self._counts = counts
        self._gauges = gauges
        self._models = models

    def collect(self) -> Iterator[Metric]:
        finished = CounterMetricFamily("bunri_jobs_finished", "Jobs ended, by fate.", labels=("status", "code"))
        for fate, count in sorted(self._counts.items()):
            status, _, code = fate.partition(":")
            finished.add_metric((status, code), count)
        yield finished
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(name, "Now, as the ledger has it.", value=value)
        yield from _of_models(self._models)


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
        refused.add_metric((each.model,), each.refused)
    yield from (paused, left, pauses, probes, refused)
