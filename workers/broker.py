"""kombu's Redis channels as a worker needs them: which queue comes first, and that they outlive their connection."""

from typing import Any

from kombu.transport import redis
from kombu.utils.json import dumps

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


class Mended:
    """Asks for interactive jobs first. And outlives its connection: with kombu 5.7 a busy worker dies with Redis.

    Once the connection is gone, restoring and acknowledging raise an AttributeError, which nothing above catches.
    Neither is needed then: the jobs in flight go on, and the ledger sends again what was not claimed.
    """

    queue_order_strategy: Any = InteractiveFirst
    do_restore = False
    connection: Any
    conn_or_acquire: Any
    _lookup: Any
    _q_for_pri: Any
    _get_message_priority: Any

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        if self._is_connected():
            super().basic_ack(delivery_tag, multiple)  # type: ignore[misc]  # of the class it is mixed into

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        if self._is_connected():
            super().basic_reject(delivery_tag, requeue)  # type: ignore[misc]  # of the class it is mixed into

    def _restore_at_beginning(self, message: Any) -> None:
        """Put a message that was handed back where the next is taken from; kombu would put it behind all others."""
        with self.conn_or_acquire() as client:
            place = message.delivery_info
            for queue in self._lookup(place["exchange"], place["routing_key"]):
                payload = message.serializable() | {"redelivered": True}
                client.rpush(self._q_for_pri(queue, self._get_message_priority(payload)), dumps(payload))

    def _is_connected(self) -> bool:
        return self.connection is not None and self.connection.client is not None


class Channel(Mended, redis.Channel):
    pass


class SentinelChannel(Mended, redis.SentinelChannel):
    pass


def install() -> None:
    """For every connection that this process opens from now on."""
    redis.Transport.Channel = Channel
    redis.SentinelTransport.Channel = SentinelChannel
