"""Calls of hosted models: their number, tokens and price, and today's budget."""

from collections.abc import Mapping
from datetime import date
from typing import Self

from pydantic import Field

from jobs.model import OverBudget
from jobs.settings import JobsSettings
from jobs.usage import Day, ModelUsage, by_model, left_of
from jobs.view import View


class BillView(View):
    """Calls that were answered by a hosted model. `input_tokens` includes the cached ones."""

    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float = Field(description="0 for a model whose price nobody told.")

    @classmethod
    def of(cls, bill: ModelUsage) -> Self:
        used = bill.usage
        return cls(
            calls=bill.calls,
            input_tokens=used.input_tokens,
            cached_tokens=used.cached_tokens,
            output_tokens=used.output_tokens,
            cost_usd=round(used.cost_usd, 9),  # The ledger's are whole nanodollars; their sum as floats is not.
        )


class DayView(View):
    """One day in UTC."""

    day: date
    models: dict[str, BillView]
    total: BillView

    @classmethod
    def of(cls, day: Day) -> Self:
        return cls(day=day.day, models=_bills(day.models), total=BillView.of(day.total))


class BudgetView(View):
    """Of today. Without a limit (null) nothing is ever left or used up."""

    limit_usd: float | None
    spent_usd: float
    left_usd: float | None
    is_used_up: bool
    exceeded: OverBudget = Field(description="What becomes of jobs for hosted models once it is used up.")

    @classmethod
    def of(cls, spent: float, jobs: JobsSettings) -> Self:
        limit = jobs.model_budget_usd
        return cls(
            limit_usd=limit,
            spent_usd=spent,
            left_usd=left_of(limit, spent),
            is_used_up=limit is not None and spent >= limit,
            exceeded=jobs.model_budget_exceeded,
        )


class UsageView(View):
    """What hosted models have cost: `days` with the newest first, `models` and `total` over all of these."""

    days: list[DayView]
    models: dict[str, BillView]
    total: BillView
    budget: BudgetView

    @classmethod
    def of(cls, days: list[Day], jobs: JobsSettings) -> Self:
        """`days` begins with today."""
        return cls(
            days=[DayView.of(day) for day in days],
            models=_bills(by_model(days)),
            total=BillView.of(sum((day.total for day in days), ModelUsage())),
            budget=BudgetView.of(BillView.of(days[0].total).cost_usd, jobs),
        )


def _bills(models: Mapping[str, ModelUsage]) -> dict[str, BillView]:
    return {model: BillView.of(bill) for model, bill in models.items()}
