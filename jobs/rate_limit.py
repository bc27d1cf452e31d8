"""Rate limit: a token bucket for each caller, in Redis, so that all API processes count together."""

from dataclasses import dataclass

from jobs.ledger.connection import LedgerConnection
from jobs.redis import keys
from jobs.redis.connection import translated


@dataclass(frozen=True)
class Allowance:
    """The rest of a caller's rate limit. Durations are seconds; `retry_after` is 0 when the request may pass."""

    passes: bool
    remaining: int
    retry_after: float
    reset_in: float


class RateLimit:
    """`per_minute` requests in the long run, at most `burst` at once."""

    def __init__(self, ledger: LedgerConnection, *, per_minute: int, burst: int) -> None:
        self.burst = burst
        self._interval = 60 / per_minute
        self._take = ledger.scripts.load("take_token")

    async def take(self, caller: str) -> Allowance:
        """Count one request; one over the limit does not count. Raises LedgerUnavailable."""
        with translated():
            passes, remaining, retry_after, reset_in = await self._take(
                allowance=keys.rate(caller), interval=self._interval, burst=self.burst
            )
        return Allowance(bool(passes), remaining, retry_after / 1e6, reset_in / 1e6)
