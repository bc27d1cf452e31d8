"""One fault from its start to its verdict."""

import asyncio
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.clients import FINAL
from tests.chaos.oracle import Observed, extra_calls, judge, lost, observe, p99, stream_faults
from tests.chaos.registry import Fault
from tests.chaos.rig import RATE, Options, Rig, rig


@dataclass(frozen=True)
class Report:
    """What is printed of one fault. `broken`: invariant → what breaks it."""

    fault: Fault
    jobs: int
    seed: int
    figures: dict[str, Any]
    broken: dict[str, list[str]]
    notes: list[str]

    @property
    def line(self) -> dict[str, Any]:
        """For the JSON line."""
        head = {
            "fault": self.fault.id,
            "title": self.fault.title,
            "date": time.strftime("%Y-%m-%d"),
            "jobs": self.jobs,
            "seed": self.seed,
        }
        tail = {"settings": self.fault.env, "simulated": self.fault.simulated, "notes": self.notes}
        return head | self.figures | {"broken": self.broken} | tail


async def run(
    fault: Fault, *, jobs: int, seed: int, keep: Path | None = None, env: dict[str, str] | None = None
) -> Report:
    """Start the rig, let the fault happen while jobs stream in, wait for the end of all, and judge.

    `env` is added to the fault's own. The logs of a run that breaks something are copied to the folder `keep`.
    """
    rate = jobs / fault.seconds if fault.seconds else RATE
    began = time.monotonic()
    options = Options(jobs, seed, min(rate, RATE), fault.env | (env or {}), fault.wired)
    async with rig(fault.id, options, start=fault.started) as it:
        it.start_stream()
        await _act(fault, it)
        await it.drain()
        seen = await observe(it)
        broken = judge(seen)
        it.stop()
        if left := it.leftovers():
            broken.setdefault("I7", []).append(f"left running: {left}")
        if broken and keep:
            shutil.copytree(it.folder / "logs", keep / fault.id, dirs_exist_ok=True)
        return Report(fault, jobs, seed, _figures(seen, time.monotonic() - began), broken, it.notes)


async def _act(fault: Fault, it: Rig) -> None:
    """An act that cannot go on breaks the fault's bar, and the oracle still looks at what there is."""
    try:
        async with asyncio.timeout(400):
            await fault.act(it)
    except Exception as error:  # noqa: BLE001 - whatever it was
        it.demand(holds=False, what=f"the fault could not be played to its end: {error!r}"[:300])


def _figures(seen: Observed, seconds: float) -> dict[str, Any]:
    streams = [stream_faults(job) for job in seen.rig.watched]
    ended = [job for job in seen.accepted if job.status in FINAL]
    return {
        "accepted": len(seen.accepted),
        "ended": len(ended),
        "completed": sum(job.code == "completed" for job in ended),
        "lost": len(lost(seen)),
        "extra_calls": extra_calls(seen),
        "recovered": None if seen.rig.recovered is None else round(seen.rig.recovered, 1),
        "events_lost": sum(missing for missing, _ in streams),
        "events_repeated": sum(repeated for _, repeated in streams),
        "job_p95": round(_p95([job.seconds for job in ended if job.ended_at]), 2),
        "health_p99_ms": round(1000 * p99([each.seconds for each in seen.rig.probes if each.seconds is not None])),
        "seconds": round(seconds),
        "load": round(os.getloadavg()[0], 1),
    }


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)] if values else 0.0
