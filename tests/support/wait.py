"""Waiting on a predicate, the only way a test waits."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 60.0
"""Longer than anything takes on a machine that does much else: whoever waits for less waits for luck."""


def wait_until(predicate: Callable[[], bool], *, within: float = PATIENCE_SECONDS, every: float = 0.02) -> None:
    """Return as soon as the predicate holds; fail after `within` seconds."""
    end = time.monotonic() + within
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"not true within {within} s: {predicate}")
        time.sleep(every)


async def eventually(
    predicate: Callable[[], Awaitable[bool]], *, within: float = PATIENCE_SECONDS, every: float = 0.02
) -> None:
    """`wait_until` for a predicate that awaits."""
    end = time.monotonic() + within
    while not await predicate():
        if time.monotonic() > end:
            raise AssertionError(f"not true within {within} s: {predicate}")
        await asyncio.sleep(every)
