import asyncio
from typing import cast

import pytest

from jobs.errors import StaleClaim
from jobs.ledger.claims import Claims
from jobs.model import Claim
from pipeline.types import Checkpoints, JobInput
from workers.execute import leases
from workers.execute.leases import Leases


class Refusing:
    """Claims of a ledger that knows this one no more."""

    @property
    def claims(self) -> "Refusing":
        return self

    async def renew(self, _claim: Claim) -> None:
        raise StaleClaim


@pytest.fixture
def held_by() -> Leases:
    return Leases(cast("Claims", Refusing()), 3.0)


@pytest.fixture
def claim() -> Claim:
    return Claim(
        job_id="a",
        token=1,
        input=JobInput(),
        checkpoints=Checkpoints(),
        attempts=1,
        retries={},
        time_left=60,
        trace_id="",
    )


async def test_work_whose_claim_is_lost_is_stopped(
    held_by: Leases, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "REVOKE_DELAY_SECONDS", 0.0)

    async def work() -> None:
        with held_by.hold(claim):
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    await held_by.renew_all()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_work_that_has_just_ended_its_job_is_not_stopped(
    held_by: Leases, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal is refused because the final write has come first, and its answer is not here yet."""
    monkeypatch.setattr(leases, "REVOKE_DELAY_SECONDS", 0.05)
    with held_by.hold(claim) as held:
        renewing = asyncio.create_task(held_by.renew_all())
        for _ in range(5):
            await asyncio.sleep(0)
    await renewing
    assert not held.is_lost
