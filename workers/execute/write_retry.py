"""Retries idempotent ledger writes while Redis is down, until a deadline: such a write may hold a paid result."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from jobs.errors import LedgerUnavailable

WRITE_RETRY_INTERVAL_SECONDS = 0.5

Result = TypeVar("Result")

log = structlog.get_logger()


async def retry_write(write: Callable[[], Awaitable[Result]], *, deadline: float) -> Result:
    """Return what `write` returns. Raises LedgerUnavailable at `deadline`, a time of the event loop's clock.

    `write` must be idempotent: after LedgerUnavailable the first try may have happened.
    """
    while True:
        try:
            return await write()
        except LedgerUnavailable as error:
            if asyncio.get_running_loop().time() + WRITE_RETRY_INTERVAL_SECONDS > deadline:
                raise
            log.warning("ledger.write_waits", error=str(error))
        await asyncio.sleep(WRITE_RETRY_INTERVAL_SECONDS)
