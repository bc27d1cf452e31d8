"""kombu's Redis channel, made to outlive its connection: with kombu 5.7 a busy worker dies when Redis goes away."""

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """Once its connection is gone, restoring and acknowledging raise an AttributeError, which nothing above catches.

    Neither is needed then: the jobs in flight go on, and the ledger sends again what was not claimed.
    """

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
