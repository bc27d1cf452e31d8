"""Background work of a worker process, repeated whatever goes wrong in one round."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from jobs.errors import LedgerUnavailable, QueueUnavailable
from pipeline.errors import PipelineError

log = structlog.get_logger()


async def run_periodically(name: str, interval: float, work: Callable[[], Awaitable[object]]) -> None:
    """Run `work`, sleep `interval` seconds, and again until cancelled.

    One bad round must not end the repair of all jobs, so every exception is caught and logged here.
    """
    while True:
        try:
            await work()
        except (LedgerUnavailable, QueueUnavailable, PipelineError, OSError) as error:
            log.warning("background.failed", work=name, error=repr(error))
        except Exception:
            log.exception("background.broke", work=name)
        await asyncio.sleep(interval)
