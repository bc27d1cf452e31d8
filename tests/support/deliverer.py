"""A webhook dispatcher that runs in the test's own loop, against a real Redis and real receivers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from jobs.deliveries import Deliveries, Delivery
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from kit.address import AddressGuard
from kit.http import Lookup, system_lookup
from pipeline.knowledge.texts import Texts
from pipeline.settings import RESOURCES
from tests.support.jobs import new_job, result
from tests.support.receiver import SECRET
from tests.support.wait import eventually
from workers.maintenance.periodic import run_periodically
from workers.webhooks.dispatcher import Dispatcher
from workers.webhooks.sender import WebhookSender

SCHEDULE = (0.05, 0.05, 0.05)


@asynccontextmanager
async def delivering(
    ledger: Ledger,
    *,
    schedule: Sequence[float] = SCHEDULE,
    secrets: str = SECRET,
    guard: AddressGuard | None = None,
    lookup: Lookup = system_lookup,
) -> AsyncIterator[Deliveries]:
    """Deliver until the block ends. Loopback may be called unless `guard` says otherwise."""
    deliveries = Deliveries(ledger)
    keys = JobsSettings.model_validate({"webhook_secrets": secrets}).webhook_keys
    sender = WebhookSender(guard or AddressGuard("127.0.0.1", ()), keys, lookup=lookup)
    texts = Texts.load(RESOURCES)
    dispatcher = Dispatcher(ledger, deliveries, sender, lambda: texts, schedule)
    rounds = asyncio.create_task(run_periodically("deliveries", 0, dispatcher.dispatch_due))
    try:
        yield deliveries
    finally:
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)
        await dispatcher.close()


async def completed_job(ledger: Ledger, callback_url: str) -> str:
    """A job that has just ended and is to be delivered."""
    job = new_job().model_copy(update={"callback_url": callback_url})
    await ledger.submissions.create(job)
    claim = await ledger.claims.claim(job.job_id)
    assert claim
    await ledger.claims.complete(claim, result())
    return job.job_id


async def attempted(deliveries: Deliveries, job_id: str, times: int = 1) -> Delivery:
    """The delivery as it is after so many attempts, which it waits for."""

    async def has_been() -> bool:
        return len((await deliveries.of(job_id)).attempts) >= times

    await eventually(has_been)
    return await deliveries.of(job_id)


async def closed(deliveries: Deliveries, job_id: str) -> Delivery:
    """The delivery when nothing more is planned for it."""

    async def is_closed() -> bool:
        delivery = await deliveries.of(job_id)
        return delivery.due_at is None and bool(delivery.attempts)

    await eventually(is_closed)
    return await deliveries.of(job_id)
