"""The connection to Redis, and what trouble with it is called.

The ledger, and whatever else the fleet shares, builds on it.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis.asyncio as redis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError, ResponseError

from jobs.redis.url import sentinels
from jobs.settings import JobsSettings

MOST_CONNECTIONS = 50
"""Of one process. More do not make one loop faster, and a crowd of clients would open one each, all at once."""

SERVER_TROUBLE = {
    "OOM": "Redis is full: its maxmemory is reached",
    "READONLY": "Redis is a read-only replica",
    "MISCONF": "Redis cannot write its file to disk",
    "LOADING": "Redis is still loading its data",
    "MASTERDOWN": "Redis is a replica without its master",
    "NOREPLICAS": "Redis has too few replicas to take a write",
    "BUSY": "Redis is busy with a script",
    "CLUSTERDOWN": "the Redis cluster is down",
}
"""Error replies of a Redis that cannot serve now, by their first word."""


class LedgerUnavailable(Exception):
    """Redis did not answer, or not in time, or it cannot serve now. A write may or may not have happened."""


class QueueUnavailable(Exception):
    """The broker did not take the message in time. It may have it all the same."""


class FastConnection:
    """redis-py's connection, whose two habits do not suit us."""

    def pack_commands(self, commands: Iterable[Sequence[Any]]) -> list[bytes]:
        """As redis-py does, in C: a script's thirty arguments take it 60 µs."""
        return [hiredis.pack_command((*name.split(), *arguments)) for name, *arguments in commands]

    async def send_packed_command(self: Any, command: Iterable[bytes], *, check_health: bool = True) -> None:
        """Without `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes as it ends."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command(command)
        except BaseException:  # A part may have been sent: nothing else can go over this connection.
            await self.disconnect(nowait=True)
            raise


class CheckedPool:
    """redis-py does not see that a connection was closed while nobody used it, and would send on it."""

    connection_class: type

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.connection_class = type("Connection", (FastConnection, self.connection_class), {})

    async def ensure_connection(self, connection: Any) -> None:
        writer, reader = connection._writer, connection._reader  # noqa: SLF001 - they have no other name
        if writer is not None and (writer.is_closing() or reader.at_eof()):
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)  # type: ignore[misc]  # of the class it is mixed into


class _Pool(CheckedPool, redis.BlockingConnectionPool):
    pass


class _SentinelPool(CheckedPool, SentinelConnectionPool):
    pass


def connect(settings: JobsSettings) -> redis.Redis:
    """To the ledger. One per process."""
    return connect_to(settings.redis_url.get_secret_value(), settings.redis_timeout)


def connect_to(url: str, timeout: float) -> redis.Redis:
    """Connects on first use. Nothing is tried twice here: who calls knows what may be repeated."""
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    options: dict[str, Any] = {
        **timeouts,
        "socket_keepalive": True,
        "health_check_interval": 30,
    }
    if (watched := sentinels(url)) is None:
        pool = _Pool.from_url(url, max_connections=MOST_CONNECTIONS, timeout=2 * timeout, **options)
        return redis.Redis.from_pool(pool)
    options |= {"username": watched.username, "password": watched.password, "db": watched.db}
    asked = Sentinel(watched.hosts, sentinel_kwargs={**timeouts, "password": watched.sentinel_password})  # type: ignore[no-untyped-call]  # not annotated
    client: redis.Redis = asked.master_for(watched.master, connection_pool_class=_SentinelPool, **options)
    return client


async def disconnect(client: redis.Redis) -> None:
    """Close the client, and what asks the Sentinels for it."""
    await client.aclose()
    if (asked := getattr(client.connection_pool, "sentinel_manager", None)) is not None:
        await asked.aclose()


@contextmanager
def translated() -> Iterator[None]:
    """Trouble of Redis as LedgerUnavailable. A mistake of ours, in a script or in a key's type, stays what it is."""
    try:
        yield
    except (RedisError, OSError) as error:
        trouble = _trouble(error)
        if trouble is None and isinstance(error, ResponseError):
            raise
        raise LedgerUnavailable(trouble or type(error).__name__) from error
    except RuntimeError as error:
        if "closed" not in str(error):  # uvloop's word for a connection that was reset just now
            raise
        raise LedgerUnavailable("reset") from error


def _trouble(error: Exception) -> str | None:
    """What the server says of itself. redis-py cuts off a word that it knows; Redis 6 hides it in a script's error."""
    word = getattr(error, "status_code", None)
    if word in SERVER_TROUBLE:
        return SERVER_TROUBLE[word]
    text = str(error)
    return next((said for word, said in SERVER_TROUBLE.items() if text.startswith(word) or f"-{word} " in text), None)
