"""The draft of a job's answer: in the job's record while it is written, and chunk by chunk in the feed.

Only for people to look at. Nothing is decided by it, and a chunk may be lost: then the follower gets the whole text.
"""

from typing import Any, cast

from jobs.errors import StaleClaim
from jobs.ledger.connection import LedgerConnection
from jobs.model import Claim
from jobs.redis import keys
from jobs.redis.connection import translated
from pipeline.types import Strict


class Draft(Strict):
    """The text so far. `revision` counts how often the text has started over; `length` is in bytes."""

    revision: int = 0
    text: str = ""

    @property
    def length(self) -> int:
        return len(self.text.encode())


class DraftChunk(Strict):
    """A chunk as the feed has it: `text` stands at byte `at` of the draft with this `revision`."""

    revision: int
    at: int
    text: str


class TextDelta(Strict):
    """More of the text; with `restart`, discard earlier chunks: the text starts over with this one."""

    text: str
    restart: bool


class DraftStore:
    """One per process, on the ledger's client. Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, ledger: LedgerConnection) -> None:
        self._client = ledger.client
        self._add = ledger.scripts.load("draft")

    async def add(self, claim: Claim, chunk: str, *, restart: bool) -> None:
        """Raises StaleClaim."""
        with translated():
            held = await self._add(
                job=keys.job(claim.job_id), job_id=claim.job_id, token=claim.token, restart=int(restart), chunk=chunk
            )
        if not held:
            raise StaleClaim

    async def of(self, job_id: str) -> Draft:
        with translated():
            text, revision = await cast("Any", self._client.hmget(keys.job(job_id), "draft", "drafts"))
        return Draft(revision=int(revision or 0), text=(text or b"").decode())
