"""What a job's answer says so far: in the job's record while it is written, and piece by piece in the feed.

Only for people to look at. Nothing is decided by it, and a piece may be lost: then the text is told anew.
"""

from typing import Any, cast

from jobs.ledger.ledger import FEED, Ledger, StaleClaim
from jobs.model import Claim
from jobs.redis.connection import translated
from pipeline.types import Strict


class Draft(Strict):
    """A text so far. `beginning` counts how often the job's text has begun; `length` is in bytes."""

    revision: int = 0
    text: str = ""

    @property
    def length(self) -> int:
        return len(self.text.encode())


class DraftChunk(Strict):
    """As the feed has it: what stands at byte `at` of a text that began for the time `beginning`."""

    revision: int
    at: int
    text: str


class TextDelta(Strict):
    """What to pass on: more of the text or, if `anew`, the text from its beginning."""

    text: str
    restart: bool


class DraftStore:
    """One per process, on the ledger's client. Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, ledger: Ledger) -> None:
        self._client = ledger.client
        self._add = ledger.scripts.load("draft")

    async def add(self, claim: Claim, piece: str, *, restart: bool) -> None:
        """Raises StaleClaim."""
        with translated():
            held = await self._add(
                keys=[_job_key(claim.job_id), FEED], args=[claim.job_id, claim.token, int(restart), piece]
            )
        if not held:
            raise StaleClaim

    async def of(self, job_id: str) -> Draft:
        with translated():
            text, revision = await cast("Any", self._client.hmget(_job_key(job_id), "draft", "drafts"))
        return Draft(revision=int(revision or 0), text=(text or b"").decode())


def _job_key(job_id: str) -> str:
    return f"bunri:job:{job_id}"
