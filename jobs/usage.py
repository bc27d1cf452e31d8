"""Usage and cost of the hosted models, by day and by model (decision 0013). Only read here.

`charge` in the prelude of the scripts counts each call in the write that keeps its result.
"""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any, cast

from jobs.ledger.connection import LedgerConnection
from jobs.redis import keys
from jobs.redis.connection import translated
from pipeline.types import Strict, Usage

DAYS_KEPT = 90
"""Days that can be asked for, today included; their keys live a little longer (`USAGE_KEPT` in the prelude)."""

DAY = 86_400
EPOCH = date(1970, 1, 1)


class ModelUsage(Strict):
    """Paid calls, with their tokens and cost."""

    calls: int = 0
    usage: Usage = Usage()

    def __add__(self, other: "ModelUsage") -> "ModelUsage":
        return ModelUsage(calls=self.calls + other.calls, usage=self.usage + other.usage)


class Day(Strict):
    """One day, in UTC. A call belongs to the day on which its result was written."""

    day: date
    models: dict[str, ModelUsage]

    @property
    def total(self) -> ModelUsage:
        return sum(self.models.values(), ModelUsage())


class UsageReader:
    """Every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, ledger: LedgerConnection) -> None:
        self._ledger = ledger

    async def days(self, count: int) -> list[Day]:
        """The last `count` days by the clock of Redis, today first, those without a call among them."""
        today = int(await self._ledger.now()) // DAY
        numbers = range(today, today - count, -1)
        with translated():
            async with self._ledger.client.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hgetall(keys.usage_of_day(number))
                found = await pipe.execute()
        return [
            Day(day=EPOCH + timedelta(days=number), models=_usage_by_model(fields))
            for number, fields in zip(numbers, found, strict=True)
        ]

    async def ever(self) -> dict[str, ModelUsage]:
        """Usage of each model since the ledger began."""
        with translated():
            return _usage_by_model(await cast("Any", self._ledger.client.hgetall(keys.USAGE)))


def dollars(nanodollars: int) -> float:
    return nanodollars / 1e9


def left_of(budget: float | None, spent: float) -> float | None:
    """The rest of a day's budget, in US dollars; None: there is no limit."""
    return None if budget is None else max(round(budget - spent, 9), 0.0)


def by_model(days: Iterable[Day]) -> dict[str, ModelUsage]:
    """The sum of each model over these days."""
    sums: dict[str, ModelUsage] = {}
    for day in days:
        for model, usage in day.models.items():
            sums[model] = sums.get(model, ModelUsage()) + usage
    return sums


def _usage_by_model(fields: Mapping[bytes, bytes]) -> dict[str, ModelUsage]:
    """From counters named `kind:model`."""
    counts = {name.decode(): int(count) for name, count in fields.items()}
    models = sorted(name.removeprefix("calls:") for name in counts if name.startswith("calls:"))
    return {model: _usage_of(model, counts) for model in models}


def _usage_of(model: str, counts: Mapping[str, int]) -> ModelUsage:
    return ModelUsage(
        calls=counts[f"calls:{model}"],
        usage=Usage(
            input_tokens=counts.get(f"input:{model}", 0),
            cached_tokens=counts.get(f"cached:{model}", 0),
            output_tokens=counts.get(f"output:{model}", 0),
            cost_usd=dollars(counts.get(f"nanodollars:{model}", 0)),
        ),
    )
