"""The event feed: one Redis reader per process, whatever the number of followers.

A follower reads the job's own list from where it left off and is woken by the shared stream. The stream only wakes:
events that are passed on always carry their number in that list, so nothing is lost or repeated when the stream is
trimmed. Drafts are not in the list: a follower that missed a chunk gets the whole text so far.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any, TypeAlias, cast

import structlog

from jobs.errors import LedgerUnavailable
from jobs.feed.drafts import Draft, DraftChunk, DraftStore, TextDelta
from jobs.feed.followers import Cursor, Inbox, News
from jobs.ledger.ledger import Ledger
from jobs.model import Job, JobEvent
from jobs.redis.connection import translated
from jobs.redis.keys import FEED
from pipeline.types import Stage

KEEPALIVE_SECONDS = 15.0
RETRY_SECONDS = 0.5
MAX_ENTRIES_PER_READ = 500

Followed: TypeAlias = JobEvent | TextDelta | None

log = structlog.get_logger()


class Feed:
    """Start it on the event loop that its followers run on."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._drafts = DraftStore(ledger)
        self._followers: dict[str, set[Inbox]] = defaultdict(set)
        self._reader: asyncio.Task[None] | None = None
        self.is_closing = False

    async def start(self) -> None:
        self._reader = asyncio.create_task(self._read(), name="feed-reader")

    def end_following(self) -> None:
        """End every `follow` and `wait` now, unfinished: this process is about to stop."""
        self.is_closing = True
        for inboxes in self._followers.values():
            for inbox in inboxes:
                inbox.close()

    async def close(self) -> None:
        if self._reader is None:
            return
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    def backlogs(self, job_id: str | None = None) -> list[int]:
        """For each follower, of this job or of all: how many batches wait in its inbox."""
        followed = self._followers if job_id is None else self._followers.keys() & {job_id}
        return [len(inbox) for each in followed for inbox in self._followers[each]]

    async def follow(self, job_id: str, after: int = 0, *, drafts: bool = False) -> AsyncIterator[Followed]:
        """Each event numbered above `after`, once and in order, up to and with `done`; with `drafts` text deltas, too.

        None after 15 s of silence or after trouble with the stream: a sign of life to pass on.
        Ends early when the job is gone, or when this process stops.
        """
        async with aclosing(cast("Any", self.follow_batches(job_id, after, drafts=drafts))) as following:
            async for batch in following:
                for news in batch:
                    yield news

    async def follow_batches(
        self, job_id: str, after: int = 0, *, drafts: bool = False, until: asyncio.Future[None] | None = None
    ) -> AsyncIterator[Sequence[Followed]]:
        """Like `follow`, but yields batches, so that a caller can do one write for each.

        Ends early, too, when `until` is done.
        """
        cursor = Cursor(after, Draft() if drafts else None)
        with self._subscribed(job_id) as inbox:
            if until is not None:
                until.add_done_callback(inbox.close)
            if self.is_closing:
                return
            pending = await self._caught_up(job_id, cursor)
            while True:
                if pending:
                    yield pending
                for news in pending:
                    if isinstance(news, JobEvent):
                        if news.stage is Stage.DONE:
                            return
                        cursor.after = news.seq
                pending = await self._next(job_id, cursor, inbox)
                if not pending:
                    if inbox.is_closed or await self._ledger.submissions.is_gone(job_id):
                        return
                    yield (None,)

    async def wait(self, job_id: str, timeout: float) -> Job | None:  # noqa: ASYNC109 - the contract's ?wait=N
        """The job when it has ended, or as it is after `timeout` seconds. None for an unknown id."""
        job = await self._ledger.submissions.get(job_id)
        if job is None or job.status.is_final or timeout <= 0:
            return job
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), aclosing(cast("Any", self.follow(job_id))) as events:
                async for _ in events:
                    pass
        return await self._ledger.submissions.get(job_id)

    async def _next(self, job_id: str, cursor: Cursor, inbox: Inbox) -> list[JobEvent | TextDelta]:
        """Wait for what comes next. Empty after a silence that even the list confirms."""
        while (batch := await inbox.get(KEEPALIVE_SECONDS)) is not None and all(map(cursor.knows, batch)):
            pass
        if batch is not None and (taken := cursor.take(batch)):
            return taken
        if inbox.is_closed:
            return []
        return await self._caught_up(job_id, cursor)

    async def _caught_up(self, job_id: str, cursor: Cursor) -> list[JobEvent | TextDelta]:
        events = await self._ledger.submissions.events(job_id, cursor.after)
        if cursor.draft is None or (events and events[-1].stage is Stage.DONE):
            return [*events]
        draft = await self._drafts.of(job_id)
        if not draft.text or draft == cursor.draft:
            return [*events]
        cursor.draft = draft
        return [*events, TextDelta(text=draft.text, restart=True)]

    @contextmanager
    def _subscribed(self, job_id: str) -> Iterator[Inbox]:
        inbox = Inbox()
        self._followers[job_id].add(inbox)
        try:
            yield inbox
        finally:
            self._followers[job_id].discard(inbox)
            if not self._followers[job_id]:
                del self._followers[job_id]

    async def _read(self) -> None:
        entry_id: bytes | None = None
        while True:
            try:
                with translated():
                    entry_id = await self._read_after(entry_id) if entry_id else await self._end_of_stream()
            except LedgerUnavailable as error:
                # From its end then: a stream that was lost starts again, perhaps at an earlier time.
                entry_id = None
                log.warning("feed.read_failed", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _end_of_stream(self) -> bytes:
        """The id of the last entry. A "$" in each read would miss entries that come between two reads."""
        newest = await cast("Any", self._ledger.client.xrevrange(FEED, count=1))
        self._wake_all()
        return newest[0][0] if newest else b"0-0"

    async def _read_after(self, entry_id: bytes) -> bytes:
        """Pass on the entries after this one; returns the id of the last."""
        block = self._ledger.longest_block_ms
        reply = await cast("Any", self._ledger.client.xread({FEED: entry_id}, MAX_ENTRIES_PER_READ, block))
        for _stream, entries in reply:
            for job_id, batch in self._by_job(entries).items():
                for inbox in self._followers[job_id]:
                    inbox.put(batch)
            entry_id = entries[-1][0]
        return entry_id

    def _by_job(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> dict[str, list[News]]:
        """Job → its news, for jobs that have followers."""
        found: dict[str, list[News]] = {}
        for _entry_id, fields in entries:
            try:
                job_id = fields[b"job"].decode()
                if job_id in self._followers:
                    found.setdefault(job_id, []).append(_news(fields))
            except (KeyError, ValueError):  # Another version wrote it; the job's own list has it, too.
                log.warning("feed.entry_unread")
        return found

    def _wake_all(self) -> None:
        """Make each follower read its list: the stream may have lost something."""
        for inboxes in self._followers.values():
            for inbox in inboxes:
                inbox.put(None)


def _news(fields: dict[bytes, bytes]) -> News:
    if (revision := fields.get(b"draft")) is not None:
        return DraftChunk(revision=int(revision), at=int(fields[b"at"]), text=fields[b"piece"].decode())
    return JobEvent.parse(int(fields[b"seq"]), fields[b"event"])
