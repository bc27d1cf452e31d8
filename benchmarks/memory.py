"""What a job in flight takes of memory, and a follower of it: `python -m benchmarks.memory`.

Jobs of one real stack wait for a model that takes a minute; the memory of its processes (PSS) beyond that of the idle
stack, divided by the jobs. Then each job gets a follower. Beside it, in the same run: as many bare jobs (`bare_job.py`)
that wait in one process, which is what the bodies of their requests and their connections take.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from benchmarks.load import counts, hosted, model_server, photo_file, pids_of, stack_options
from benchmarks.processes import Process, line_of, memory_of, started
from benchmarks.report import Report, Row, ratio
from benchmarks.sse import listening
from cli.stack.stack import Stack, running_stack
from tests.support.wait import eventually

ROLES = ("api", "worker", "decode", "redis")
WARM_UP = 5
"""Jobs, few: what they leave free in a process is room for later ones, and hides as many of them."""

SUBMITTERS = 32
SETTLE = 2.0


class NotInFlight(Exception):
    """Some jobs have ended before all were in flight: the model must take longer on this machine."""


async def submit(http: aiohttp.ClientSession, api: str, photo: str, jobs: int) -> list[str]:
    """The paths of their events."""
    left = iter(range(jobs))
    paths: list[str] = []

    async def work() -> None:
        for _ in left:
            async with http.post(f"{api}/api/v1/scan", json={"image_url": photo}) as taken:
                taken.raise_for_status()
                paths.append((await taken.json())["stream_url"])

    await asyncio.gather(*(work() for _ in range(SUBMITTERS)))
    return paths


async def until_waiting(model: str, jobs: int, within: float) -> None:
    """Until so many calls are in flight, the first of their jobs."""

    async def all_wait() -> bool:
        asked = await counts(model)
        if asked.get("answer", 0) > WARM_UP:
            raise NotInFlight
        return asked.get("vision", 0) >= jobs + WARM_UP

    await eventually(all_wait, within=within, every=0.2)
    await asyncio.sleep(SETTLE)


def memory_by_role(stack: Stack) -> dict[str, int]:
    return {role: memory_of(pids) for role, pids in pids_of(stack).items()}


async def in_stack(folder: Path, model: str, at: list[int], options: argparse.Namespace) -> list[dict[str, float]]:
    """KB per job, by role, for each number of jobs; and per follower."""
    env = hosted(model) | {"PIPELINE_MODEL_TIMEOUT": str(options.latency * 2)}
    whole = stack_options(folder, workers=1, concurrency=max(at), **env)
    found: list[dict[str, float]] = []
    paths: list[str] = []
    async with running_stack(whole) as stack, aiohttp.ClientSession() as http:
        photo = f"{model}/photo.jpg"
        for path in await submit(http, stack.api_url, photo, WARM_UP):
            async with http.get(f"{stack.api_url}{path}") as stream:
                await stream.read()
        await asyncio.sleep(SETTLE)
        idle = memory_by_role(stack)
        for jobs in at:
            paths += await submit(http, stack.api_url, photo, jobs - len(paths))
            await until_waiting(model, jobs, options.latency)
            now = memory_by_role(stack)
            found.append({role: (now[role] - idle[role]) / 1024 / jobs for role in ROLES})
        api = pids_of(stack)["api"]
        before = memory_of(api)
        async with listening(urlsplit(stack.api_url).port or 80, paths):
            found[-1]["follower"] = (memory_of(api) - before) / 1024 / len(paths)
    return found


async def bare(model: str, jobs: int, options: argparse.Namespace) -> float:
    """KB per bare job in flight."""
    arguments = (f"{model}/photo.jpg", model, f"--jobs={jobs}", f"--at-once={jobs}", f"--warm-up={WARM_UP}")
    async with started("benchmarks.bare_job", *arguments) as process:
        await line_of(process)
        before = memory_of([process.pid])
        await begin(process)
        await until_waiting(model, jobs, options.latency)
        return (memory_of([process.pid]) - before) / 1024 / jobs


async def begin(process: Process) -> None:
    assert process.stdin is not None  # noqa: S101 - asked for
    process.stdin.write(b"go\n")
    await process.stdin.drain()


async def measure(options: argparse.Namespace) -> list[Row]:
    at = sorted(options.jobs)
    latency = [str(options.latency)] * 2
    times = ["--vision", *latency, "--answer", *latency, f"--at-once={WARM_UP}"]
    bare_kb = []
    with tempfile.TemporaryDirectory() as folder:
        photo = photo_file(Path(folder), "1")
        for jobs in at:
            async with model_server(photo, *times) as model:
                bare_kb.append(await bare(model[0], jobs, options))
        async with model_server(photo, *times) as model:
            found = await in_stack(Path(folder) / "stack", model[0], at, options)
    return [
        {
            "kB each": f"{jobs} jobs",
            **{role: kb[role] for role in ROLES},
            "whole": (whole := sum(kb[role] for role in ROLES)),
            "bare": reference,
            "ratio": ratio(whole, reference),
            "follower": kb.get("follower"),
        }
        for jobs, kb, reference in zip(at, found, bare_kb, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=(250, 500, 1000))
    parser.add_argument("--latency", type=float, default=60.0, help="seconds that the model takes")
    options = parser.parse_args()
    report = Report("memory")
    rows = asyncio.run(measure(options))
    report.print(rows, "1-MP photo, 1 worker process; memory beyond that of the idle stack, which had done some jobs")


if __name__ == "__main__":
    main()
