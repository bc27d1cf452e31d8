"""The day's budget for hosted models, as one process knows it (decision 0013)."""

import structlog

from jobs.model import OverBudget
from pipeline.errors import ModelBudgetExhausted

log = structlog.get_logger()


class Budget:
    """Of the whole fleet, in US dollars a day (UTC). No `limit`: any.

    What was spent comes from Redis every now and then. Until a process has heard of the last cents it may begin calls,
    and those under way go on: the budget is overshot by the price of the calls that the fleet makes in that moment.
    """

    def __init__(self, limit: float | None = None, then: OverBudget = OverBudget.LOCAL) -> None:
        self._limit = limit
        self._is_used_up = False
        # A job that is to fail may yet be answered from an earlier result, which is found once its photo is there.
        self.is_told_early = then is OverBudget.LOCAL

    def learn(self, spent: float) -> None:
        """What the fleet has spent today; less than before on a new day."""
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
