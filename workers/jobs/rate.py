"""How often each caller may ask: a bucket of tokens a caller, in Redis, so that all API processes count together."""

from dataclasses import dataclass

from workers.jobs.connection import translated
from workers.jobs.ledger import Ledger


@dataclass(frozen=True)
class Allowance:
    """What is left to a caller. Durations are seconds; `retry_after` is 0 when the request may pass."""

    passes: bool
    remaining: int
    retry_after: float
    whole_in: float


class RateLimit:
    """`a_minute` requests in the long run, at most `burst` at once."""

    def __init__(self, ledger: Ledger, *, a_minute: int, burst: int) -> None:
        self.burst = burst
        self._interval = 60 / a_minute
        self._take = ledger.scripts.load("take_token")

    async def take(self, caller: str) -> Allowance:
        """Count one request; one that may not pass counts for nothing. Raises LedgerUnavailable."""
        with translated():
            passes, remaining, retry_after, whole_in = await self._take(
                keys=[f"bunri:rate:{caller}"], args=[self._interval, self.burst]
            )
        return Allowance(bool(passes), remaining, retry_after / 1e6, whole_in / 1e6)
