"""What Prometheus reads at /metrics: requests of this process, and the ledger's own counts of all jobs."""

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.jobs.connection import LedgerUnavailable
from workers.jobs.ledger import Ledger
from workers.jobs.line import Line, Lookout
from workers.jobs.model import Priority

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

    async def render(self, ledger: Ledger, lookout: Lookout) -> bytes:
        """The text format. While the ledger cannot be read its figures are absent, and `bunri_ledger_up` is 0."""
        shared = CollectorRegistry()
        shared.register(await _read(ledger, lookout))
        return generate_latest(self._registry) + generate_latest(shared)


async def _read(ledger: Ledger, lookout: Lookout) -> Collector:
    try:
        counts = await ledger.counts()
        line = await lookout.look()
        gauges = {
            "bunri_ledger_up": 1,
            "bunri_jobs_running": line.running,
            "bunri_workers_live": len(await ledger.workers()),
            "bunri_workers_slots": line.slots,
        }
    except LedgerUnavailable as error:
        log.warning("metrics.ledger_missed", error=str(error))
        return _Shared({}, {"bunri_ledger_up": 0}, None)
    return _Shared(counts, gauges, line)


class _Shared(Collector):
    def __init__(self, counts: dict[str, int], gauges: dict[str, int], line: Line | None) -> None:
        self._counts = counts
        self._gauges = gauges
        self._line = line

    def collect(self) -> Iterator[Metric]:
        finished = CounterMetricFamily("bunri_jobs_finished", "Jobs ended, by fate.", labels=("status", "code"))
        for fate, count in sorted(self._counts.items()):
            status, _, code = fate.partition(":")
            finished.add_metric((status, code), count)
        yield finished
        if self._line is not None:
            queued = GaugeMetricFamily("bunri_jobs_queued", "Waiting now, by lane.", labels=("priority",))
            queued.add_metric((Priority.INTERACTIVE,), self._line.interactive)
            queued.add_metric((Priority.BULK,), self._line.bulk)
            yield queued
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(name, "Now, as the ledger has it.", value=value)
