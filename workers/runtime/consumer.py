"""Celery's consumer with three changes, installed by Celery's setting `worker_consumer`: it reconnects at a short fixed
interval, has no step for delayed delivery, and publishes task events in larger groups.
"""

import time
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

RECONNECT_INTERVAL_SECONDS = 1.0
"""Time between two tries to reach the broker. Celery's own grows to 30 s, which is how long a recovery would take."""

DELAYED_DELIVERY = "celery.worker.consumer.delayed_delivery:DelayedDelivery"
"""Declares 28 quorum queues for countdowns, which we do not use: a retry waits in the ledger."""

OVERRIDDEN = ("on_send_event_buffered", "_flush_events", "shutdown", "ensure_connected")

EVENT_FLUSH_INTERVAL_SECONDS = 1.0
"""How long task events, which Flower reads, wait for more of them. Celery publishes each at once: three a job."""

MAX_WAITING_EVENTS = 500
"""Celery publishes once 24 events wait, which a busy worker collects in a few hundredths of a second."""


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery ships no types
    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc]
        default_steps = tuple(step for step in CeleryConsumer.Blueprint.default_steps if step != DELAYED_DELIVERY)

    _flush_due = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        check_consumer(CeleryConsumer)
        super().__init__(*args, **options)

    def on_send_event_buffered(self) -> None:
        self.event_dispatcher.buffer_limit = MAX_WAITING_EVENTS
        if self.hub and self._flush_due <= (now := time.monotonic()):
            self._flush_due = now + EVENT_FLUSH_INTERVAL_SECONDS
            self.hub.call_later(EVENT_FLUSH_INTERVAL_SECONDS, self._flush_events)

    def shutdown(self) -> None:
        self._flush_events()
        super().shutdown()

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=RECONNECT_INTERVAL_SECONDS, interval_step=0.0
        )
        return super().ensure_connected(conn)


def check_consumer(consumer: Any) -> None:
    """Raises RuntimeError, which ends the worker's start, if Celery's consumer lacks what this module changes.

    Without this check a renamed step or method would silently turn the change off.
    """
    missing = [name for name in OVERRIDDEN if not hasattr(consumer, name)]
    if DELAYED_DELIVERY not in consumer.Blueprint.default_steps:
        missing.append(DELAYED_DELIVERY)
    if missing:
        raise RuntimeError(f"Celery's consumer has no {', '.join(missing)}: read workers/runtime/consumer.py again")
