"""Writes to the ledger that are worth a wait: a result that was paid for, while Redis is away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from jobs.errors import LedgerUnavailable

PAUSE = 0.5

Written = TypeVar("Written")

log = structlog.get_logger()


async def retry_write(write: Callable[[], Awaitable[Written]], *, until: float) -> Written:
    """Again and again until Redis takes it, or raises LedgerUnavailable at `until`, a time of the loop's clock.

    The write may run twice, so it must be one that can.
    """
    while True:
        try:
            return await write()
        except LedgerUnavailable as error:
            if asyncio.get_running_loop().time() + PAUSE > until:
                raise
            log.warning("ledger.write_waits", error=str(error))
        await asyncio.sleep(PAUSE)
