"""The pipeline's `OnText` for one job: what is written goes to the feed, the first words at once."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from jobs.drafts import DraftStore
from jobs.errors import LedgerUnavailable, StaleClaim
from jobs.model import Claim

PACE = 0.05
"""Seconds between two writes. A model writes faster than anybody reads, and Redis carries all jobs."""

PAUSE = 1.0
"""Seconds to leave alone a Redis that is in trouble."""

LONGEST = 16_000
"""Letters that are shown while they are written. The answer itself has its own limit."""

log = structlog.get_logger()


@dataclass
class PreviewWriter:
    """Never raises, and waits for no write but the last: without Redis the job loses nothing but this preview.

    Nothing is written once the claim is stale. `lose` is then called if the text is still being written.
    """

    drafts: DraftStore
    claim: Claim
    revoke: Callable[[], None]
    _is_stale: bool = field(default=False, init=False)
    _text: str = field(default="", init=False)
    _sent: int | None = field(default=None, init=False)  # letters that are in the record; None: it must begin anew
    _sending: asyncio.Task[None] | None = field(default=None, init=False)
    _ending: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def __call__(self, piece: str, *, restart: bool = False) -> None:
        if restart:
            self._text, self._sent = "", None
        self._text = (self._text + piece)[:LONGEST]
        if self._sending is None and not self._is_stale and self._sent != len(self._text):
            self._sending = asyncio.create_task(self._send_all())

    async def flush(self) -> None:
        """Tell what is left without a pause: the job is about to end."""
        self._ending.set()
        if self._sending is not None:
            await self._sending

    async def close(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            with suppress(asyncio.CancelledError):
                await self._sending

    async def _send_all(self) -> None:
        try:
            while self._sent != len(self._text):
                is_sent = await self._send()
                if self._ending.is_set() and not is_sent:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(PACE if is_sent else PAUSE):
                        await self._ending.wait()
        except StaleClaim:
            log.debug("draft.dropped")
            self._is_stale = True
            if not self._ending.is_set():  # A call that is over is charged by the job's last write.
                self.revoke()
        finally:
            self._sending = None

    async def _send(self) -> bool:
        """A write without an answer may have happened or not, so the next begins anew."""
        start, end = self._sent, len(self._text)
        piece, self._sent = self._text[start or 0 : end], end
        try:
            await self.drafts.add(self.claim, piece, restart=start is None)
        except LedgerUnavailable as error:
            self._sent = None
            log.warning("draft.not_written", error=str(error))
            return False
        return True
