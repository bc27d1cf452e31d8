"""The cache of results, as one job uses it: the same question about the same photo costs no second model call."""

import asyncio
import math
from dataclasses import dataclass, field
from functools import partial

from jobs.ledger.ledger import Ledger
from jobs.model import CacheEntry, Claim
from pipeline.types import PipelineResult
from workers.execute.write_retry import retry_write

CACHE_POLL_INTERVAL_SECONDS = 0.2


@dataclass
class JobResultCache:
    """The pipeline's `ResultCache` for one job. `ttl` is in seconds; 0 disables look-ups and storing."""

    ledger: Ledger
    claim: Claim
    ttl: int
    _fingerprint: str | None = field(default=None, init=False)

    async def find(self, fingerprint: str) -> PipelineResult | None:
        """Wait while another job computes the same result. None: this job must compute it.

        If that other job fails, one waiting job takes the reservation over; the rest compute without one.
        """
        if self.ttl == 0:
            return None
        self._fingerprint = fingerprint
        if self.claim.input.fresh:
            return None
        reserve = partial(self.ledger.claims.reserve, fingerprint, self.claim.job_id)
        found = first = await retry_write(reserve, deadline=math.inf)  # The job's own deadline ends the wait.
        while found.holder is not None and found.holder == first.holder:
            await asyncio.sleep(CACHE_POLL_INTERVAL_SECONDS)
            found = await retry_write(reserve, deadline=math.inf)
        return found.result

    def to_share(self, result: PipelineResult) -> CacheEntry | None:
        """The entry to store for other jobs; None for a result that is degraded or came from the cache."""
        if self._fingerprint is None or result.cached or result.degraded:
            return None
        return CacheEntry(fingerprint=self._fingerprint, ttl=self.ttl)
