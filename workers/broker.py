"""kombu's Redis channels, made to outlive their connection: with kombu 5.7 a busy worker dies when Redis goes away."""

from typing import Any

from kombu.transport import redis
from kombu.utils.json import dumps


class Outliving:
    """Once its connection is gone, restoring and acknowledging raise an AttributeError, which nothing above catches.

    Neither is needed then: the jobs in flight go on, and the ledger sends again what was not claimed.
    """

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


class Channel(Outliving, redis.Channel):
    pass


class SentinelChannel(Outliving, redis.SentinelChannel):
    pass


def install() -> None:
    """For every connection that this process opens from now on."""
    redis.Transport.Channel = Channel
    redis.SentinelTransport.Channel = SentinelChannel
