"""Celery's consumer with two habits of its own changed, at the setting that Celery has for it (`worker_consumer`)."""

from functools import partial
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

PAUSE = 1.0
"""Seconds between two tries to reach the broker. Celery's own grow to 30, which is how long a recovery would take."""

DELAYED_DELIVERY = "celery.worker.consumer.delayed_delivery:DelayedDelivery"
"""Declares 28 quorum queues for countdowns, which we do not use: a retry waits in the ledger."""


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery ships no types
    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc]
        default_steps = tuple(step for step in CeleryConsumer.Blueprint.default_steps if step != DELAYED_DELIVERY)

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(conn.ensure_connection, interval_start=PAUSE, interval_step=0.0)
        return super().ensure_connected(conn)
