"""One model call per job on three queues, one worker process each: `make bench-peers`.

Bunri; taskiq on a Redis stream with aiohttp; Celery's threads with the openai SDK as one usually writes it. The same
stand-in for the model, prompt, number of jobs in flight and driver for each; Redis, worker, model and driver are
processes of their own. What is not the same is in the README.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from benchmarks.load import hosted, model_server
from benchmarks.peers.call import PROMPT, REDIS
from benchmarks.processes import Process, between, cpu_by_role, family, line_of, started
from benchmarks.report import Report, Row, percentile, ratio
from benchmarks.servers import redis_server
from pipeline.knowledge.knowledge import Knowledge
from pipeline.knowledge.texts import render_question_prompt
from pipeline.settings import PipelineSettings
from workers.command import worker_command

SYSTEMS = ("taskiq", "bunri", "celery")
REFERENCE = "taskiq"


@dataclass(frozen=True)
class Options:
    in_flight: int
    concurrency: int
    latency: float
    warm_up: float
    seconds: float


@asynccontextmanager
async def worker(system: str, concurrency: int, env: dict[str, str]) -> AsyncIterator[Process]:
    match system:
        case "bunri":
            module, *arguments = worker_command(1, concurrency)[2:]
        case "taskiq":
            module, *arguments = "taskiq", "worker", "benchmarks.peers.with_taskiq:broker"
            arguments += ["--workers=1", f"--max-async-tasks={concurrency}", "--log-level=WARNING"]
        case _:
            module, *arguments = "celery", "-A", "benchmarks.peers.with_celery", "worker", "--pool=threads"
            arguments += [f"--concurrency={concurrency}", "--without-mingle", "--without-gossip", "--loglevel=WARNING"]
    async with started(module, *arguments, env=env, heard=False) as process:
        try:
            yield process
        finally:
            process.terminate()  # taskiq's worker is a child, which only a parent that is asked to stop ends.
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()


async def measure_one(system: str, model: tuple[str, int], prompt: Path, options: Options) -> Row:
    async with redis_server() as redis:
        env = hosted(model[0]) | {REDIS: redis.url, "REDIS_URL": redis.url, PROMPT: str(prompt)}
        env |= {"LOG_LEVEL": "WARNING", "WORKERS_DRAIN": "1"}
        crowd = (f"--users={options.in_flight}", f"--warm-up={options.warm_up}", f"--seconds={options.seconds}")
        async with (
            worker(system, options.concurrency, env) as process,
            started("benchmarks.peers.driver", system, *crowd, env=env) as driver,
        ):

            def cpu() -> dict[str, float]:
                others = {"Redis": [redis.process.pid], "driver": [driver.pid], "model": [model[1]]}
                return cpu_by_role({"worker": family(process.pid)} | others)

            await line_of(driver)
            before = cpu()
            await line_of(driver)
            spent = between(before, cpu())
            waited = json.loads(await line_of(driver))["waited"]
    added = [(each - options.latency) * 1000 for each in waited]
    done, possible = len(waited), options.in_flight / options.latency
    return {
        "": system,
        "in flight": options.in_flight,
        "jobs a second": done / options.seconds,
        "of possible, %": 100 * done / options.seconds / possible,
        "added p50 ms": percentile(added, 50),
        "p99 ms": percentile(added, 99),
        **{f"{role} CPU-ms": seconds * 1000 / done for role, seconds in spent.items()},
    }


def with_ratios(rows: list[Row]) -> list[Row]:
    """Worker's and Redis' CPU together, as a multiple of the reference's."""

    def cpu(row: Row) -> float:
        return cast("float", row["worker CPU-ms"]) + cast("float", row["Redis CPU-ms"])

    reference = next(row for row in rows if row[""] == REFERENCE)
    return [{**row, f"CPU ÷ {REFERENCE}": ratio(cpu(row), cpu(reference))} for row in rows]


async def measure(options: argparse.Namespace) -> list[Row]:
    found: list[Row] = []
    latency = [str(options.latency)] * 2
    with tempfile.TemporaryDirectory() as folder:
        prompt = Path(folder) / "prompt"
        knowledge = Knowledge.load(PipelineSettings().resources)
        prompt.write_text(render_question_prompt(knowledge.texts, knowledge.rulebook))
        async with model_server(prompt, "--question", *latency, "--answer", *latency) as model:
            for in_flight in options.in_flight:
                room = round(in_flight * options.room)
                one = Options(in_flight, room, options.latency, options.warm_up, options.seconds)
                rows = [await measure_one(system, model, prompt, one) for system in options.systems]
                found += with_ratios(rows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--in-flight", type=int, nargs="+", default=(500, 1000))
    parser.add_argument("--room", type=float, default=1.0, help="jobs that a worker takes at once ÷ those in flight")
    parser.add_argument("--latency", type=float, default=2.0, help="seconds that the model call takes")
    parser.add_argument("--warm-up", type=float, default=8.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if REFERENCE not in options.systems:
        parser.error(f"{REFERENCE} is what the others are compared with")
    report = Report("peers")
    rows = asyncio.run(measure(options))
    report.print(rows, f"one model call of {options.latency:g} s per job, 1 worker process; added: beyond that call")


if __name__ == "__main__":
    main()
