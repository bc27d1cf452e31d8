"""The connection to Redis, the scripts that run there, and what trouble with it is called.

The ledger, and whatever else the fleet shares, builds on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import redis.asyncio as redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError, ResponseError

from workers.jobs.settings import JobsSettings

SERVER_TROUBLE = ("OOM", "READONLY", "MISCONF", "LOADING", "MASTERDOWN", "NOREPLICAS", "BUSY", "CLUSTERDOWN")
"""Error replies of a Redis that cannot serve now: full, read-only, its disk full, loading, failing over."""


class LedgerUnavailable(Exception):
    """Redis did not answer, or not in time. A write may or may not have happened."""


def connect(settings: JobsSettings) -> redis.Redis:
    """One per process. Connects on first use."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=settings.redis_timeout,
        socket_connect_timeout=settings.redis_timeout,
        socket_keepalive=True,
        health_check_interval=30,
        max_connections=10_000,
    )


def script(client: redis.Redis, name: str) -> AsyncScript:
    """`lua/<name>.lua` behind the prelude."""
    folder = files("workers.jobs") / "lua"
    return client.register_script((folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text())


@contextmanager
def translated() -> Iterator[None]:
    """Trouble of Redis as LedgerUnavailable. A mistake of ours, in a script or in a key's type, stays what it is."""
    try:
        yield
    except ResponseError as error:
        if not any(trouble in str(error) for trouble in SERVER_TROUBLE):
            raise
        raise LedgerUnavailable(str(error)[:100]) from error
    except (RedisError, OSError) as error:
        raise LedgerUnavailable(type(error).__name__) from error
