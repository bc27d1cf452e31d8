"""kombu's Redis channel as a worker needs it: which queue comes first, and that it outlives its connection."""

from typing import Any

from kombu.transport import redis

from workers.jobs.line import BULK_TURN


class InteractiveFirst:
    """The order of the queues in each request for one message, as kombu's `queue_order_strategy` (utils/scheduling.py).

    Interactive jobs first; after seven of them in a row bulk jobs are asked for first, once, so that they never starve.
    """

    def __init__(self) -> None:
        self._queues: list[str] = []
        self._in_a_row = 0

    def update(self, queues: list[str]) -> None:
        self._queues = sorted(queues)  # `JobsSettings.queue_of`: the interactive one sorts first

    def consume(self, _count: int) -> list[str]:
        is_bulks_turn = self._in_a_row >= BULK_TURN - 1
        return self._queues[::-1] if is_bulks_turn else self._queues

    def rotate(self, queue: str) -> None:
        """A message came from this queue."""
        is_interactive = self._queues[:1] == [queue]
        self._in_a_row = self._in_a_row + 1 if is_interactive else 0


class Channel(redis.Channel):
    """Asks for interactive jobs first. And outlives its connection: with kombu 5.7 a busy worker dies with Redis.

    Once the connection is gone, restoring and acknowledging raise an AttributeError, which nothing above catches.
    Neither is needed then: the jobs in flight go on, and the ledger sends again what was not claimed.
    """

    queue_order_strategy = InteractiveFirst  # type: ignore[assignment]  # a name or a class, says kombu
    do_restore = False

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        if self._is_connected():
            super().basic_ack(delivery_tag, multiple)  # type: ignore[no-untyped-call]  # kombu ships no types

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        if self._is_connected():
            super().basic_reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]  # kombu ships no types

    def _is_connected(self) -> bool:
        connection: Any = self.connection
        return connection is not None and connection.client is not None


def install() -> None:
    """For every connection that this process opens from now on."""
    redis.Transport.Channel = Channel
