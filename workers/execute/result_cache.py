"""Earlier results of the same question about the same photo, as one job sees them."""

import asyncio
import math
from dataclasses import dataclass, field
from functools import partial

from jobs.ledger.ledger import Ledger
from jobs.model import CacheEntry, Claim
from pipeline.types import PipelineResult
from workers.execute.write_retry import retry_write

POLL = 0.2


@dataclass
class JobResultCache:
    """The pipeline's `ResultCache` for one job. `ttl` 0: nothing is looked up and nothing is kept."""

    ledger: Ledger
    claim: Claim
    ttl: int
    _fingerprint: str | None = field(default=None, init=False)

    async def find(self, fingerprint: str) -> PipelineResult | None:
        """Waits while another job makes it. If that one does not succeed, one waiter takes over, the rest go alone."""
        if self.ttl == 0:
            return None
        self._fingerprint = fingerprint
        if self.claim.input.fresh:
            return None
        ask = partial(self.ledger.claims.reserve, fingerprint, self.claim.job_id)
        found = first = await retry_write(ask, until=math.inf)  # The job's deadline ends it.
        while found.holder is not None and found.holder == first.holder:
            await asyncio.sleep(POLL)
            found = await retry_write(ask, until=math.inf)
        return found.result

    def to_share(self, result: PipelineResult) -> CacheEntry | None:
        """For other jobs, unless it was theirs or degraded."""
        if self._fingerprint is None or result.cached or result.degraded:
            return None
        return CacheEntry(fingerprint=self._fingerprint, ttl=self.ttl)
