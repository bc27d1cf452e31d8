"""Earlier results of the same question about the same photo, as one job sees them."""

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from pipeline.types import PipelineResult
from workers.insist import insist
from workers.jobs.connection import LedgerUnavailable
from workers.jobs.ledger import Ledger
from workers.jobs.model import Claim

POLL = 0.2


@dataclass
class JobReuse:
    """The pipeline's `Reuse` for one job. `ttl` 0: nothing is looked up and nothing is kept."""

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
        ask = partial(self.ledger.reserve, fingerprint, self.claim.job_id)
        found = first = await insist(ask, until=math.inf)  # The job's deadline ends it.
        while found.holder is not None and found.holder == first.holder:
            await asyncio.sleep(POLL)
            found = await insist(ask, until=math.inf)
        return found.result

    async def share(self, result: PipelineResult) -> None:
        """Keep it for other jobs, unless it was theirs or degraded. Not worth a wait: the job itself comes first."""
        if self._fingerprint is not None and not result.cached and not result.degraded:
            with suppress(LedgerUnavailable):
                await self.ledger.share(self._fingerprint, result, ttl=self.ttl)
