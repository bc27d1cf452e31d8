"""What Prometheus reads at /metrics: requests of this process, and the ledger's own counts of all jobs."""

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.jobs.connection import LedgerUnavailable
from workers.jobs.deliveries import Deliveries, Outcome
from workers.jobs.ledger import Ledger

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

    async def render(self, ledger: Ledger, deliveries: Deliveries) -> bytes:
        """The text format. While the ledger cannot be read its figures are absent, and `bunri_ledger_up` is 0."""
        shared = CollectorRegistry()
        shared.register(await _read(ledger, deliveries))
        return generate_latest(self._registry) + generate_latest(shared)


async def _read(ledger: Ledger, deliveries: Deliveries) -> Collector:
    try:
        counts = await ledger.counts()
        attempts = await deliveries.counts()
        gauges = {
            "bunri_ledger_up": 1,
            "bunri_jobs_queued": await ledger.depth(),
            "bunri_jobs_running": await ledger.running(),
            "bunri_workers_live": len(await ledger.workers()),
            "bunri_deliveries_open": await deliveries.open(),
            "bunri_deliveries_due": await deliveries.due(),
        }
    except LedgerUnavailable as error:
        log.warning("metrics.ledger_missed", error=str(error))
        return _Shared({}, {}, {"bunri_ledger_up": 0})
    return _Shared(counts, attempts, gauges)


class _Shared(Collector):
    def __init__(self, counts: dict[str, int], attempts: dict[Outcome, int], gauges: dict[str, int]) -> None:
        self._counts = counts
        self._attempts = attempts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        finished = CounterMetricFamily("bunri_jobs_finished", "Jobs ended, by fate.", labels=("status", "code"))
        for fate, count in sorted(self._counts.items()):
            status, _, code = fate.partition(":")
            finished.add_metric((status, code), count)
        yield finished
        attempts = CounterMetricFamily("bunri_delivery_attempts", "Webhook attempts, by outcome.", labels=("outcome",))
        for outcome, count in self._attempts.items():
            attempts.add_metric((outcome,), count)
        yield attempts
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(name, "Now, as the ledger has it.", value=value)
