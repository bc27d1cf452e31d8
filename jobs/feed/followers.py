"""One follower of the feed: the inbox that its news wait in, and the cursor that says how far it has come."""

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from jobs.feed.drafts import Draft, DraftChunk, TextDelta
from jobs.model import JobEvent

MAX_INBOX = 32
"""Batches of news that wait for a slow follower."""

News: TypeAlias = JobEvent | DraftChunk

Batch: TypeAlias = list[News] | None
"""None: read the list, for something may have been lost."""


class Inbox:
    """News that waits for one follower. There are thousands of these, and a Queue takes ten times the memory."""

    __slots__ = ("_batches", "_waiter", "is_closed")

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._waiter: asyncio.Future[None] | None = None
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._batches)

    def put(self, batch: Batch) -> None:
        """A full inbox is cleared; the follower then re-reads the stored events."""
        if len(self) >= MAX_INBOX:
            self._batches = []
            batch = None
        self._batches.append(batch)
        self._wake()

    def close(self, _until: object = None) -> None:
        self.is_closed = True
        self.put(None)

    async def get(self, timeout: float) -> Batch:  # noqa: ASYNC109 - a timer costs less than asyncio.timeout
        """The oldest batch; None also after `timeout` seconds without one. For one caller at a time."""
        if not self._batches:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout, self._wake)
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
class Cursor:
    """How far a follower has come: the last event, and the text so far if it wants that."""

    after: int
    draft: Draft | None

    def knows(self, news: News) -> bool:
        if isinstance(news, JobEvent):
            return news.seq <= self.after
        if self.draft is None:
            return True
        end = news.at + len(news.text.encode())
        return (news.revision, end) <= (self.draft.revision, self.draft.length)

    def take(self, batch: list[News]) -> list[JobEvent | TextDelta] | None:
        """The news in it, and moves the draft on. None when something is missing before it."""
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
            elif (delta := self._delta(news)) is not None:
                taken.append(delta)
            else:
                return None
        return taken

    def _delta(self, chunk: DraftChunk) -> TextDelta | None:
        draft = self.draft
        if draft and (chunk.revision, chunk.at) == (draft.revision, draft.length):
            self.draft = Draft(revision=draft.revision, text=draft.text + chunk.text)
            return TextDelta(text=chunk.text, restart=False)
        if chunk.at == 0:
            self.draft = Draft(revision=chunk.revision, text=chunk.text)
            return TextDelta(text=chunk.text, restart=True)
        return None
