"""The pipeline's `OnText` for one job: publishes the answer to the feed while the model writes it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from jobs.errors import LedgerUnavailable, StaleClaim
from jobs.feed.drafts import DraftStore
from jobs.model import Claim

PREVIEW_INTERVAL_SECONDS = 0.05
"""Time between two writes. A model writes faster than anybody reads, and Redis carries all jobs."""

PREVIEW_RETRY_SECONDS = 1.0
"""Time between two writes while Redis is in trouble."""

MAX_PREVIEW_LETTERS = 16_000
"""Letters that a preview shows. The answer itself has its own limit."""

log = structlog.get_logger()


@dataclass
class PreviewWriter:
    """Never raises. Only `flush` waits for a write: without Redis the job loses nothing but this preview.

    Once the claim is stale nothing more is written, and `revoke` is called if the text is still being written.
    """

    drafts: DraftStore
    claim: Claim
    revoke: Callable[[], None]
    _is_stale: bool = field(default=False, init=False)
    _text: str = field(default="", init=False)
    _written: int | None = field(default=None, init=False)  # letters in the record; None: the next write starts over
    _writing: asyncio.Task[None] | None = field(default=None, init=False)
    _ending: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def __call__(self, piece: str, *, restart: bool = False) -> None:
        if restart:
            self._text, self._written = "", None
        self._text = (self._text + piece)[:MAX_PREVIEW_LETTERS]
        if self._writing is None and not self._is_stale and self._written != len(self._text):
            self._writing = asyncio.create_task(self._write_all())

    async def flush(self) -> None:
        """Write the rest without a pause: the job is about to end."""
        self._ending.set()
        if self._writing is not None:
            await self._writing

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing

    async def _write_all(self) -> None:
        try:
            while self._written != len(self._text):
                is_written = await self._write()
                if self._ending.is_set() and not is_written:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(PREVIEW_INTERVAL_SECONDS if is_written else PREVIEW_RETRY_SECONDS):
                        await self._ending.wait()
        except StaleClaim:
            log.debug("draft.dropped")
            self._is_stale = True
            if not self._ending.is_set():  # The job's last write charges a call that is over.
                self.revoke()
        finally:
            self._writing = None

    async def _write(self) -> bool:
        """Write the new letters. A write without a reply may or may not have happened, so the next one starts over."""
        start, end = self._written, len(self._text)
        piece, self._written = self._text[start or 0 : end], end
        try:
            await self.drafts.add(self.claim, piece, restart=start is None)
        except LedgerUnavailable as error:
            self._written = None
            log.warning("draft.not_written", error=str(error))
            return False
        return True
