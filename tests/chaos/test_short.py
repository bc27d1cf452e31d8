"""The short form of the chaos suite: a few faults with a few jobs. `make chaos` plays all of them with more."""

import pytest

from tests.chaos import faults
from tests.chaos.registry import REGISTRY
from tests.chaos.run import run

JOBS = 16

TIMED = {"I8", "time"}
"""Bars on time, which are for a machine that does nothing else."""

SHORT_LEASE = {"WORKERS_LEASE": "3"}

PLAYED: dict[str, dict[str, str]] = {
    "F01-vision": SHORT_LEASE,
    "F02": SHORT_LEASE,
    "F03": {},
    "F07": {},
    "F09": {},
    "F26": {},
    "F29": {},
    "F30": SHORT_LEASE,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PLAYED)
async def test_no_invariant_breaks_under_fault(name: str) -> None:
    faults.load()
    report = await run(REGISTRY.faults[name], jobs=JOBS, seed=1, env=PLAYED[name])
    assert report.figures["accepted"] == JOBS
    assert {invariant: what for invariant, what in report.broken.items() if invariant not in TIMED} == {}


def test_every_fault_says_what_it_promises() -> None:
    faults.load()
    assert [name for name, fault in REGISTRY.faults.items() if not fault.promise] == []
