"""What a job's answer says so far: in the job's record while it is written, and piece by piece in the feed.

Only for people to look at. Nothing is decided by it, and a piece may be lost: then the text is told anew.
"""

from typing import Any, cast

from pipeline.types import Frozen
from workers.jobs.connection import translated
from workers.jobs.ledger import FEED, Ledger, StaleClaim
from workers.jobs.model import Claim


class Draft(Frozen):
    """A text so far. `beginning` counts how often the job's text has begun; `length` is in bytes."""

    beginning: int = 0
    text: str = ""

    @property
    def length(self) -> int:
        return len(self.text.encode())


class Piece(Frozen):
    """As the feed has it: what stands at byte `at` of a text that began for the time `beginning`."""

    beginning: int
    at: int
    text: str


class Told(Frozen):
    """What to pass on: more of the text or, if `anew`, the text from its beginning."""

    text: str
    anew: bool


class Drafts:
    """One per process, on the ledger's client. Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, ledger: Ledger) -> None:
        self._client = ledger.client
        self._add = ledger.scripts.load("draft")

    async def add(self, claim: Claim, piece: str, *, anew: bool) -> None:
        """Raises StaleClaim."""
        with translated():
            held = await self._add(
                keys=[_job_key(claim.job_id), FEED], args=[claim.job_id, claim.token, int(anew), piece]
            )
        if not held:
            raise StaleClaim

    async def of(self, job_id: str) -> Draft:
        with translated():
            text, beginning = await cast("Any", self._client.hmget(_job_key(job_id), "draft", "drafts"))
        return Draft(beginning=int(beginning or 0), text=(text or b"").decode())


def _job_key(job_id: str) -> str:
    return f"bunri:job:{job_id}"
