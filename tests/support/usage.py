"""Money that is spent without a model, and days that pass without waiting."""

from jobs.ledger.ledger import Ledger
from jobs.redis import keys
from jobs.usage import DAY, ModelUsage, UsageReader
from pipeline.types import PaidCall, Usage
from tests.support.jobs import new_job


async def spend(ledger: Ledger, usd: float, model: str = "gpt-test") -> None:
    """By a job that is then cancelled."""
    job = new_job()
    await ledger.submissions.create(job)
    claim = await ledger.claims.claim(job.job_id)
    assert claim is not None
    call = PaidCall(model=model, usage=Usage(input_tokens=10, cached_tokens=4, output_tokens=2, cost_usd=usd))
    await ledger.claims.record(claim, write=1, spent=call)
    await ledger.submissions.cancel(job.job_id)


async def pass_a_day(ledger: Ledger) -> None:
    """What was spent today was spent yesterday."""
    today = int(await ledger.now()) // DAY
    await ledger.client.rename(keys.usage_of_day(today), keys.usage_of_day(today - 1))


async def spent(ledger: Ledger) -> ModelUsage:
    """Today, or yesterday if it is about midnight."""
    return sum((day.total for day in await UsageReader(ledger).days(2)), ModelUsage())
