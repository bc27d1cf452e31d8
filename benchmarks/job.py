"""What one job costs in all, by process: `python -m benchmarks.job`.

Users (`users.py`) scan at a real stack, for each photo and for the local model. What the stack costs while nobody asks
is measured first and taken off. Beside it, in the same run: the same job in the fewest steps (`bare_job.py`).
"""

import argparse
import asyncio
import json
import tempfile
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from benchmarks.load import (
    OURS,
    SIZES,
    Window,
    hosted,
    model_server,
    photo_file,
    pids_of,
    stack_options,
    watch,
)
from benchmarks.processes import between, cpu_by_role, line_of, started, tell
from benchmarks.report import Report, Row, ratio
from cli.stack.stack import Stack, running_stack

CASES = {"1 MP": ("1", False), "12 MP": ("12", False), "1 MP, local": ("1", True)}
"""Name → photo, and whether the local model looks at it."""

SETTLE = 3.0
"""Seconds after a stack is ready in which it still does what only its start needs."""


@dataclass(frozen=True)
class Options:
    users: int
    workers: int
    latency: float
    warm_up: float
    seconds: float
    idle: float


@dataclass(frozen=True)
class Cost:
    """One case: what its jobs cost beyond the idle stack, CPU-ms each by role; the idle stack, CPU-ms a second."""

    window: Window
    seconds: float
    idle: dict[str, float]

    @property
    def per_job(self) -> dict[str, float]:
        return {
            role: (cpu * 1000 - self.idle.get(role, 0.0) * self.seconds) / self.window.done
            for role, cpu in self.window.cpu.items()
        }

    @property
    def ours(self) -> float:
        return sum(self.per_job.get(role, 0.0) for role in OURS)

    @property
    def idle_ours(self) -> float:
        return sum(self.idle.get(role, 0.0) for role in OURS)


async def idle_of(stack: Stack, seconds: float) -> dict[str, float]:
    """CPU-ms a second while nothing happens, by role."""
    await asyncio.sleep(SETTLE)
    before = cpu_by_role(pids_of(stack))
    await asyncio.sleep(seconds)
    after = cpu_by_role(pids_of(stack))
    return {role: cpu * 1000 / seconds for role, cpu in between(before, after).items()}


async def cost_of(folder: Path, model: tuple[str, int], options: Options, *, local: bool) -> Cost:
    """On a stack of its own."""
    env = {} if local else hosted(model[0])
    crowd = (f"--users={options.users}", f"--warm-up={options.warm_up}", f"--seconds={options.seconds}")
    concurrency = ceil(options.users * 1.25 / options.workers)
    async with running_stack(stack_options(folder, workers=options.workers, concurrency=concurrency, **env)) as stack:
        idle = await idle_of(stack, options.idle)
        window = await watch(stack, model, *crowd, *(["--untold"] if local else []))
    return Cost(window, options.seconds, idle)


async def bare_cost(model_url: str, jobs: int, options: Options, *, local: bool) -> dict[str, float]:
    """`cpu_ms` of one bare job, and the `seconds` that all of them took."""
    arguments = [f"{model_url}/photo.jpg", model_url, f"--jobs={jobs}", f"--at-once={options.users}"]
    async with started("benchmarks.bare_job", *arguments, *(["--local"] if local else [])) as process:
        await line_of(process)
        found: dict[str, float] = json.loads(await tell(process, b"go"))
        return found


def row_of(name: str, cost: Cost, bare: dict[str, float], bare_jobs: int) -> Row:
    per_job = cost.per_job
    return {
        "CPU-ms a job": name,
        "jobs": cost.window.done,
        "failed": sum(cost.window.failed.values()),
        "a second": cost.window.done / cost.seconds,
        **{role: per_job.get(role, 0.0) for role in OURS},
        "ours": cost.ours,
        "bare": bare["cpu_ms"],
        "ratio": ratio(cost.ours, bare["cpu_ms"]),
        "bare a second": bare_jobs / bare["seconds"],
        "idle, ms a second": cost.idle_ours,
        "users": per_job["users"],
        "model": per_job["model"],
    }


async def measure(cases: list[str], options: Options, bare_jobs: int) -> list[Row]:
    rows: list[Row] = []
    times = [f"--{purpose}" for purpose in ("vision", "answer")]
    latency = [str(options.latency)] * 2
    with tempfile.TemporaryDirectory() as folder:
        for name in cases:
            size, local = CASES[name]
            photo = photo_file(Path(folder), size)
            async with model_server(photo, times[0], *latency, times[1], *latency) as model:
                cost = await cost_of(Path(folder) / f"stack-{len(rows)}", model, options, local=local)
                rows.append(row_of(name, cost, await bare_cost(model[0], bare_jobs, options, local=local), bare_jobs))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--latency", type=float, default=0.3, help="seconds that each of the two model calls takes")
    parser.add_argument("--warm-up", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--bare-jobs", type=int, default=300)
    given = parser.parse_args()
    options = Options(given.users, given.workers, given.latency, given.warm_up, given.seconds, given.idle)
    report = Report("job")
    rows = asyncio.run(measure(given.cases, options, given.bare_jobs))
    report.print(
        rows,
        f"{given.users} users, worker processes: {given.workers}; each model call {given.latency:g} s; "
        "the idle cost is taken off.",
        "bare: GET, decode, base64, two POSTs (or the local model) in one process, and nothing else.",
        sizes=SIZES,
    )


if __name__ == "__main__":
    main()
