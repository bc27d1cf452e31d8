"""kombu's Redis channels for workers: interactive jobs first, several messages in one round trip, and no crash when the
connection to Redis is lost. Overrides private methods of kombu: tests/contract/test_library_internals.py.
"""

from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from jobs.backlog import BULK_SHARE

MAX_EXTRA_MESSAGES = 4
"""Messages that one request may fetch beside the first. More would save little, and one worker should not take several
jobs while another has room for them.
"""


class InteractiveFirst:
    """kombu's `queue_order_strategy` (utils/scheduling.py): the order of the queues in each request for one message.

    Interactive jobs first. After seven of them in a row (BULK_SHARE - 1) the next request asks for bulk jobs first, so
    that they never starve.
    """

    def __init__(self) -> None:
        self._queues: list[str] = []
        self._interactive_in_a_row = 0

    def update(self, queues: list[str]) -> None:
        self._queues = sorted(queues)  # `JobsSettings.queue_of`: the interactive one sorts first

    def consume(self, _count: int) -> list[str]:
        is_bulk_first = self._interactive_in_a_row >= BULK_SHARE - 1
        return self._queues[::-1] if is_bulk_first else self._queues

    def more(self) -> tuple[str, int]:
        """The interactive queue, and how many messages a request may fetch from it beside its first one."""
        before_bulk = BULK_SHARE - 1 - self._interactive_in_a_row
        count = before_bulk - 1 if before_bulk > 0 else BULK_SHARE - 1  # Bulk's share is the request's first message.
        return self._queues[0], min(count, MAX_EXTRA_MESSAGES)

    def rotate(self, queue: str) -> None:
        """Count a message that came from this queue."""
        is_interactive = self._queues[:1] == [queue]
        self._interactive_in_a_row = self._interactive_in_a_row + 1 if is_interactive else 0


class WorkerChannelMixin:
    """For kombu's Redis channels: interactive jobs first, several messages a request, survives a lost connection.

    With kombu 5.7 a busy worker dies with Redis: once the connection is gone, restoring and acknowledging raise an
    AttributeError, which nothing above catches. Neither is needed then: the jobs in flight go on, and the ledger sends
    unclaimed jobs again.
    """

    queue_order_strategy: Any = InteractiveFirst
    do_restore = False
    connection: Any
    conn_or_acquire: Any
    active_queues: Any
    brpop_timeout: float
    client: Any
    qos: Any
    _queue_cycle: Any
    _in_poll: Any
    _brpop_sent_at: Any
    _flush_brpop_reauth: Any
    _lookup: Any
    _q_for_pri: Any
    _get_message_priority: Any
    _more: str | None = None
    """The queue that the second command of the request in flight reads; None: there is no second command."""

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        if self._is_connected():
            super().basic_ack(delivery_tag, multiple)  # type: ignore[misc]  # of the class it is mixed into

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        if self._is_connected():
            super().basic_reject(delivery_tag, requeue)  # type: ignore[misc]  # of the class it is mixed into

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send kombu's BRPOP and, in the same write, an RPOP for more; Redis answers both when a message comes."""
        if not (queues := self._queue_cycle.consume(len(self.active_queues))):
            return
        commands: list[tuple[object, ...]] = [("BRPOP", *queues, timeout or self.brpop_timeout)]
        queue, most = self._queue_cycle.more()
        room = self.qos.can_consume_max_estimate()
        count = most if room is None else min(most, room - 1)
        self._more = queue if count > 0 else None
        if self._more:
            commands.append(("RPOP", queue, count))
        self._in_poll = connection = self.client.connection
        self._brpop_sent_at = monotonic()
        connection.send_packed_command(connection.pack_commands(commands))

    def _brpop_read(self, **options: object) -> bool:
        try:
            messages = self._read_replies(**options)
            for queue, text in messages:
                self._queue_cycle.rotate(queue)
                self.connection._deliver(loads(text), queue)  # noqa: SLF001 - as kombu does
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not messages:
            raise Empty
        return True

    def _read_replies(self, **options: object) -> list[tuple[str, str]]:
        """Queue and text of each message. Reads both replies before anything is done with either."""
        client, connection = self.client, self.client.connection
        try:
            first = client.parse_response(connection, "BRPOP", **options)
            more = client.parse_response(connection, "RPOP", **options) if self._more else None
        except Exception:  # Also if only one command failed: the other's reply would be read as the next request's.
            connection.disconnect()
            raise
        taken = [first] if first else []
        taken += [(self._more, text) for text in more or ()]
        return [(bytes_to_str(queue), bytes_to_str(text)) for queue, text in taken]

    def _restore_at_beginning(self, message: Any) -> None:
        """Put a rejected message at the end that is read next; kombu would put it behind all others."""
        with self.conn_or_acquire() as client:
            sent_to = message.delivery_info
            for queue in self._lookup(sent_to["exchange"], sent_to["routing_key"]):
                payload = message.serializable() | {"redelivered": True}
                client.rpush(self._q_for_pri(queue, self._get_message_priority(payload)), dumps(payload))

    def _is_connected(self) -> bool:
        return self.connection is not None and self.connection.client is not None


class WorkerChannel(WorkerChannelMixin, redis.Channel):
    pass


class WorkerSentinelChannel(WorkerChannelMixin, redis.SentinelChannel):
    pass


def patch_kombu() -> None:
    """Make kombu use our channels for every connection to Redis that this process opens from now on. Idempotent."""
    redis.Transport.Channel = WorkerChannel
    redis.SentinelTransport.Channel = WorkerSentinelChannel
