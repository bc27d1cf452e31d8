"""`POST /api/v1/scan` beside a bare FastAPI route that does one LPUSH: `python -m benchmarks.submit`.

Two processes of the same uvicorn, asked in alternating rounds by a third one on 64 connections. Meanwhile a fourth asks
/healthz 20 times a second: what that waits is how long the event loop was blocked. No worker runs, so the jobs stay in
the queue.
"""

import argparse
import asyncio
import json
import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.processes import between, cpu_by_role, line_of, started, tell
from benchmarks.report import Report, Row, compared, percentile
from benchmarks.servers import Server, api_server, bare_server, redis_server

BODY = json.dumps({"image_url": "https://photos.example.com/cup.jpg"})
PATHS = {"bare": "/push", "bunri": "/api/v1/scan"}
PROBES_A_SECOND = 20
WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Round:
    """Of one server. Times in ms, CPU in ms a request; `probes` are what /healthz took."""

    a_second: float
    latencies: list[float]
    probes: list[float]
    failed: int
    cpu: dict[str, float]
    generator_busy: float


async def one_round(server: Server, redis_pid: int, connections: int, seconds: float) -> Round:
    arguments = (f"--connections={connections}", f"--seconds={seconds}")
    async with (
        started("benchmarks.hits", server.url + PATHS[server.name], f"--body={BODY}", *arguments) as generator,
        started("benchmarks.hits", f"{server.url}/healthz", f"--pace={PROBES_A_SECOND}", *arguments[1:]) as prober,
    ):
        roles = {"api": [server.process.pid], "redis": [redis_pid], "generator": [generator.pid]}
        await asyncio.gather(line_of(generator), line_of(prober))
        before = cpu_by_role(roles)
        answers = await asyncio.gather(tell(generator, b"go"), tell(prober, b"go"))
        spent = between(before, cpu_by_role(roles))
        hits, probes = map(json.loads, answers)
    done = len(hits["seconds"])
    return Round(
        a_second=done / hits["lasted"],
        latencies=[each * 1000 for each in hits["seconds"]],
        probes=[each * 1000 for each in probes["seconds"]],
        failed=sum(hits["failed"].values()) + sum(probes["failed"].values()),
        cpu={role: seconds * 1000 / done for role, seconds in spent.items()},
        generator_busy=spent["generator"] / hits["lasted"],
    )


def row_of(name: str, rounds: list[Round]) -> dict[str, object]:
    """Medians of the rounds; percentiles are of all their answers together."""

    def median(of: Callable[[Round], float]) -> float:
        return statistics.median(map(of, rounds))

    latencies = [each for one in rounds for each in one.latencies]
    probes = [each for one in rounds for each in one.probes]
    return {
        "": name,
        "requests a second": median(lambda one: one.a_second),
        "p50 ms": percentile(latencies, 50),
        "p99 ms": percentile(latencies, 99),
        "API CPU-ms": median(lambda one: one.cpu["api"]),
        "Redis CPU-ms": median(lambda one: one.cpu["redis"]),
        "/healthz p99 ms": percentile(probes, 99),
        "longest": max(probes),
        "failed": sum(one.failed for one in rounds),
        "generator CPU-ms": median(lambda one: one.cpu["generator"]),
        "of a core": median(lambda one: one.generator_busy),
    }


async def measure(options: argparse.Namespace) -> list[Row]:
    found: dict[str, list[Round]] = {"bare": [], "bunri": []}
    async with AsyncExitStack() as open_ones:
        redis = await open_ones.enter_async_context(redis_server())
        servers = [
            await open_ones.enter_async_context(bare_server(redis.url)),
            await open_ones.enter_async_context(api_server(redis.url)),
        ]
        for server in servers:
            await one_round(server, redis.process.pid, options.connections, WARM_UP_SECONDS)
        for _ in range(options.rounds):
            for server in servers:
                found[server.name].append(
                    await one_round(server, redis.process.pid, options.connections, options.seconds)
                )
    bare, bunri = (row_of(name, rounds) for name, rounds in found.items())
    return [bare, bunri, compared(bunri, bare, {"": "bunri ÷ bare"})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round")
    options = parser.parse_args()
    report = Report("submit")
    rows = asyncio.run(measure(options))
    report.print(
        rows,
        f"{options.rounds} rounds of {options.seconds:g} s each, {options.connections} connections, "
        f"/healthz asked {PROBES_A_SECOND} times a second meanwhile.",
    )


if __name__ == "__main__":
    main()
