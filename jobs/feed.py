"""The event feed: one Redis reader per process, whatever the number of followers.

A follower reads the job's own list from where it left off and is woken by the shared stream. The stream only wakes:
what is sent always comes from a numbered list, so nothing is lost or repeated when the stream is trimmed. Drafts are
not in the list: of these a follower who missed something gets the whole text so far.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import structlog

from jobs.drafts import Draft, DraftChunk, DraftStore, TextDelta
from jobs.ledger.ledger import FEED, Ledger
from jobs.model import Job, JobEvent
from jobs.redis.connection import LedgerUnavailable, translated
from pipeline.types import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

KEEPALIVE = 15.0
RETRY_DELAY = 0.5
INBOX = 32
"""Most batches of news that wait for a follower who is slow to take them."""

Batch: TypeAlias = list[JobEvent | DraftChunk] | None
"""None: look at the list, for something may have been lost."""

Followed: TypeAlias = JobEvent | TextDelta | None

DirectWrite: TypeAlias = Callable[[Sequence[JobEvent]], bool]
"""Passes events on at once. False: it could not, and nothing of them was passed on."""

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

    async def follow(self, job_id: str, after: int = 0, *, drafts: bool = False) -> AsyncIterator[Followed]:
        """Each event numbered above `after`, once and in order, up to and with `done`; with `drafts` what is written.

        None in between, after 15 s of silence or after trouble with the stream: a sign of life to pass on.
        Ends early when the job is gone, or when this process stops.
        """
        async with aclosing(cast("Any", self.follow_batches(job_id, after, drafts=drafts))) as following:
            async for together in following:
                for news in together:
                    yield news

    async def follow_batches(
        self,
        job_id: str,
        after: int = 0,
        *,
        drafts: bool = False,
        until: asyncio.Future[None] | None = None,
        write_now: DirectWrite | None = None,
    ) -> AsyncIterator[Sequence[Followed]]:
        """As `follow`, with what has come by the same moment in one piece: for whoever pays by the piece.

        Ends early, too, when `until` is done. Events that come while this is waited for and miss none before them, but
        for `done`, go to `straight` and not through here: to wake a task costs as much as to send an event.
        """
        place = _Cursor(after, Draft() if drafts else None)
        with self._subscribed(job_id) as inbox:
            inbox.write_now = None if write_now is None else partial(place.write_directly, write_now)
            if until is not None:
                until.add_done_callback(inbox.close)
            if self.is_closing:
                return
            pending = await self._caught_up(job_id, place)
            while True:
                if pending:
                    yield pending
                for news in pending:
                    if isinstance(news, JobEvent):
                        if news.stage is Stage.DONE:
                            return
                        place.after = news.seq
                pending = await self._next(job_id, place, inbox)
                if not pending:
                    if inbox.is_closed or await self._ledger.is_gone(job_id):
                        return
                    yield (None,)

    async def wait(self, job_id: str, timeout: float) -> Job | None:  # noqa: ASYNC109 - the contract's ?wait=N
        """The job when it has ended, or as it is after `timeout` seconds. None for an unknown id."""
        job = await self._ledger.get(job_id)
        if job is None or job.status.is_final or timeout <= 0:
            return job
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), aclosing(cast("Any", self.follow(job_id))) as events:
                async for _ in events:
                    pass
        return await self._ledger.get(job_id)

    async def _next(self, job_id: str, place: "_Cursor", inbox: "Inbox") -> list[JobEvent | TextDelta]:
        """Wait for what comes next. Empty after a silence that even the list confirms."""
        while (batch := await inbox.get(KEEPALIVE)) is not None and all(map(place.knows, batch)):
            pass
        if batch is not None and (taken := place.take(batch)):
            return taken
        if inbox.is_closed:
            return []
        return await self._caught_up(job_id, place)

    async def _caught_up(self, job_id: str, place: "_Cursor") -> list[JobEvent | TextDelta]:
        events = await self._ledger.events(job_id, place.after)
        if place.draft is None or (events and events[-1].stage is Stage.DONE):
            return [*events]
        draft = await self._drafts.of(job_id)
        if not draft.text or draft == place.draft:
            return [*events]
        place.draft = draft
        return [*events, TextDelta(text=draft.text, restart=True)]

    @contextmanager
    def _subscribed(self, job_id: str) -> "Iterator[Inbox]":
        inbox = Inbox()
        self._followers[job_id].add(inbox)
        try:
            yield inbox
        finally:
            self._followers[job_id].discard(inbox)
            if not self._followers[job_id]:
                del self._followers[job_id]

    async def _read(self) -> None:
        place: bytes | None = None
        while True:
            try:
                with translated():
                    place = await self._read_on(place) if place else await self._end_of_stream()
            except LedgerUnavailable as error:
                # From its end then: a stream that was lost starts again, perhaps at an earlier time.
                place = None
                log.warning("feed.read_failed", error=str(error))
                await asyncio.sleep(RETRY_DELAY)

    async def _end_of_stream(self) -> bytes:
        """Where the stream ends now. A "$" in each read would miss what comes between two reads."""
        newest = await cast("Any", self._ledger.client.xrevrange(FEED, count=1))
        self._wake_all()
        return newest[0][0] if newest else b"0-0"

    async def _read_on(self, place: bytes) -> bytes:
        """Pass on what the stream holds after `place`; returns the new place."""
        reply = await cast(
            "Any", self._ledger.client.xread({FEED: place}, count=500, block=self._ledger.longest_block_ms)
        )
        for _stream, entries in reply:
            for job_id, batch in self._by_job(entries).items():
                for inbox in self._followers[job_id]:
                    inbox.put(batch)
            place = entries[-1][0]
        return place

    def _by_job(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> dict[str, list[JobEvent | DraftChunk]]:
        """Job → its news, of the jobs that somebody follows."""
        found: dict[str, list[JobEvent | DraftChunk]] = {}
        for _place, fields in entries:
            try:
                job_id = fields[b"job"].decode()
                if job_id in self._followers:
                    found.setdefault(job_id, []).append(_news(fields))
            except (KeyError, ValueError):  # Another version wrote it; the job's own list has it, too.
                log.warning("feed.entry_unread")
        return found

    def _wake_all(self) -> None:
        """Make each follower look at its list: the stream may have lost something."""
        for inboxes in self._followers.values():
            for inbox in inboxes:
                inbox.put(None)


class Inbox:
    """News that waits for one follower. Of these there are thousands, and a Queue takes ten times the memory."""

    __slots__ = ("_batches", "_passed_on", "_waiter", "is_closed", "write_now")

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._waiter: asyncio.Future[None] | None = None
        self._passed_on = False
        self.is_closed = False
        self.write_now: Callable[[list[JobEvent | DraftChunk]], bool] | None = None

    def __len__(self) -> int:
        return len(self._batches)

    def put(self, batch: Batch) -> None:
        """What a slow follower has no room for it reads from the record."""
        if self._goes_directly(batch):
            self._passed_on = True
            return
        if len(self) >= INBOX:
            self._batches = []
            batch = None
        self._batches.append(batch)
        self._wake()

    def _goes_directly(self, batch: Batch) -> bool:
        """Only past a follower who has nothing before it and waits."""
        waits = self._waiter is not None and not self._waiter.done() and not self._batches
        return waits and batch is not None and self.write_now is not None and self.write_now(batch)

    def close(self, _until: object = None) -> None:
        self.is_closed = True
        self.put(None)

    async def get(self, within: float) -> Batch:
        """The oldest; None, too, if for so many seconds there is none. For one caller at a time."""
        self._passed_on = True
        while self._passed_on and not self._batches:  # Once more after a time in which something went straight on.
            self._passed_on = False
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(within, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self._batches.pop(0) if self._batches else None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass
class _Cursor:
    """How far a follower has come: the last event, and the text so far if it wants that."""

    after: int
    draft: Draft | None

    def knows(self, news: JobEvent | DraftChunk) -> bool:
        if isinstance(news, JobEvent):
            return news.seq <= self.after
        if self.draft is None:
            return True
        end = news.at + len(news.text.encode())
        return (news.revision, end) <= (self.draft.revision, self.draft.length)

    def write_directly(self, write_now: DirectWrite, batch: "list[JobEvent | DraftChunk]") -> bool:
        """Whether nothing of it is left to be done."""
        events: list[JobEvent] = []
        for news in batch:
            if self.knows(news):
                continue
            if not isinstance(news, JobEvent) or news.seq != self.after + len(events) + 1 or news.stage is Stage.DONE:
                return False
            events.append(news)
        if not events:
            return True
        if not write_now(events):
            return False
        self.after = events[-1].seq
        return True

    def take(self, batch: "list[JobEvent | DraftChunk]") -> list[JobEvent | TextDelta] | None:
        """What is new in it. None when something is missing before it."""
        taken: list[JobEvent | TextDelta] = []
        seq = self.after
        for news in batch:
            if self.knows(news):
                continue
            if isinstance(news, JobEvent):
                if news.seq != seq + 1:
                    return None
                seq = news.seq
                taken.append(news)
            elif (told := self._take(news)) is not None:
                taken.append(told)
            else:
                return None
        return taken

    def _take(self, piece: DraftChunk) -> TextDelta | None:
        draft = self.draft
        if draft and (piece.revision, piece.at) == (draft.revision, draft.length):
            self.draft = Draft(revision=draft.revision, text=draft.text + piece.text)
            return TextDelta(text=piece.text, restart=False)
        if piece.at == 0:
            self.draft = Draft(revision=piece.revision, text=piece.text)
            return TextDelta(text=piece.text, restart=True)
        return None


def _news(fields: dict[bytes, bytes]) -> JobEvent | DraftChunk:
    if (revision := fields.get(b"draft")) is not None:
        return DraftChunk(revision=int(revision), at=int(fields[b"at"]), text=fields[b"piece"].decode())
    return JobEvent.parse(int(fields[b"seq"]), fields[b"event"])
