"""The day's budget for hosted models, as one process knows it (decision 0013)."""

import structlog

from jobs.model import OverBudget
from pipeline.errors import ModelBudgetExhausted

log = structlog.get_logger()


class Budget:
    """The budget of the whole fleet, in US dollars a day (UTC). `limit` None: unlimited.

    The amount spent is read from Redis periodically. Until a process has read the last cents it may begin calls, and
    calls in flight go on: the fleet overshoots the budget by the price of the calls it makes in that moment.
    """

    def __init__(self, limit: float | None = None, then: OverBudget = OverBudget.LOCAL) -> None:
        self._limit = limit
        self._is_used_up = False
        # With `refuse`, check late: a cached result may still answer the job, and needs the photo's hash.
        self.is_checked_early = then is OverBudget.LOCAL

    def update(self, spent: float) -> None:
        """Set what the fleet has spent today; on a new day that is less than before."""
        is_used_up = self._limit is not None and spent >= self._limit
        if is_used_up and not self._is_used_up:
            log.warning("budget.used_up", spent_usd=spent, budget_usd=self._limit)
        if self._is_used_up and not is_used_up:
            log.info("budget.renewed", spent_usd=spent, budget_usd=self._limit)
        self._is_used_up = is_used_up

    def check(self) -> None:
        """Raises ModelBudgetExhausted when no call may be made."""
        if self._is_used_up:
            raise ModelBudgetExhausted(f"the day's {self._limit:g} US dollars are spent")
