"""The connection to Redis, and the translation of its errors. The ledger and all that the fleet shares build on it."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis.asyncio as redis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError, ResponseError

from jobs.errors import LedgerUnavailable
from jobs.redis.url import sentinels
from jobs.settings import JobsSettings

MAX_CONNECTIONS = 50
"""Connections of one process. More do not make one loop faster, and many clients would open one each, all at once."""

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


class FastConnection:
    """redis-py connection with two overrides: packing in C, and a send without `wait_for` (loses cancellations)."""

    def pack_commands(self, commands: Iterable[Sequence[Any]]) -> list[bytes]:
        """Packs in C (hiredis): redis-py takes 60 µs for a script's thirty arguments."""
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
    """Pool that replaces connections which the server closed while idle; redis-py would send on them."""

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
    """Client of the ledger's Redis. One per process."""
    return connect_to(settings.redis_url.get_secret_value(), settings.redis_timeout)


def connect_to(url: str, timeout: float) -> redis.Redis:
    """Connects on first use. No retries here: only the caller knows what may be repeated."""
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    options: dict[str, Any] = {
        **timeouts,
        "socket_keepalive": True,
        "health_check_interval": 30,
    }
    if (watched := sentinels(url)) is None:
        pool = _Pool.from_url(url, max_connections=MAX_CONNECTIONS, timeout=2 * timeout, **options)
        return redis.Redis.from_pool(pool)
    options |= {"username": watched.username, "password": watched.password, "db": watched.db}
    asked = Sentinel(watched.hosts, sentinel_kwargs={**timeouts, "password": watched.sentinel_password})  # type: ignore[no-untyped-call]  # not annotated
    client: redis.Redis = asked.master_for(watched.master, connection_pool_class=_SentinelPool, **options)
    return client


async def disconnect(client: redis.Redis) -> None:
    """Close the client and its connections to the Sentinels."""
    await client.aclose()
    if (asked := getattr(client.connection_pool, "sentinel_manager", None)) is not None:
        await asked.aclose()


@contextmanager
def translated() -> Iterator[None]:
    """Raise Redis' trouble as LedgerUnavailable. A bug of ours, in a script or a key's type, is raised unchanged."""
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
    """The server's trouble in words. redis-py cuts off a code it knows; Redis 6 hides it in a script's error."""
    word = getattr(error, "status_code", None)
    if word in SERVER_TROUBLE:
        return SERVER_TROUBLE[word]
    text = str(error)
    return next((said for word, said in SERVER_TROUBLE.items() if text.startswith(word) or f"-{word} " in text), None)
