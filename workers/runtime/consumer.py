"""Celery's consumer with three habits of its own changed, at the setting that Celery has for it (`worker_consumer`)."""

import time
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

PAUSE = 1.0
"""Seconds between two tries to reach the broker. Celery's own grow to 30, which is how long a recovery would take."""

DELAYED_DELIVERY = "celery.worker.consumer.delayed_delivery:DelayedDelivery"
"""Declares 28 quorum queues for countdowns, which we do not use: a retry waits in the ledger."""


EVENTS_WAIT = 1.0
"""Seconds that task events, which are for Flower, wait for more of them. Celery publishes each at once: three a job."""

MOST_EVENTS = 500
"""Of them that wait. Celery publishes after 24, which a busy worker has in a few hundredths of a second."""


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery ships no types
    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc]
        default_steps = tuple(step for step in CeleryConsumer.Blueprint.default_steps if step != DELAYED_DELIVERY)

    _flush_due = 0.0

    def on_send_event_buffered(self) -> None:
        self.event_dispatcher.buffer_limit = MOST_EVENTS
        if self.hub and self._flush_due <= (now := time.monotonic()):
            self._flush_due = now + EVENTS_WAIT
            self.hub.call_later(EVENTS_WAIT, self._flush_events)

    def shutdown(self) -> None:
        self._flush_events()
        super().shutdown()

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(conn.ensure_connection, interval_start=PAUSE, interval_step=0.0)
        return super().ensure_connected(conn)
