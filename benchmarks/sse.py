"""Event streams: what a follower costs, and how soon it hears: `python -m benchmarks.sse`.

Clients (`listeners.py`) connect to one API process, each to a job of its own, and wait. Then others do, and each job
has an event, one after the other, written to the ledger; and others follow one job with several events. Beside it, in
the same run, Starlette's streaming response with nothing behind it (`bare_api.py`) with as many clients, and a floor:
transports alone (`transports.py`). No worker runs: the events are written here.
"""

import argparse
import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp

from benchmarks.processes import Process, cpu_of, line_of, memory_of, started, tell
from benchmarks.report import Report, Row, compared, percentile
from benchmarks.servers import Server, api_server, bare_server, redis_server
from jobs.ledger.ledger import Ledger
from jobs.model import Claim
from jobs.settings import JobsSettings
from pipeline.types import Stage
from tests.support.jobs import new_job
from tests.support.jobs import started as stage_started
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

FEW = 250
"""Clients that come first, so that what only the first ones cost, the connections to Redis, is not counted."""

CREATED_TOGETHER = 100
DEADLINE = 3600.0
LEASE = "3600"

Write = Callable[[int | None, int], Awaitable[None]]
"""Writes an event of a client's own job, or without a client of the one that all follow; its number is given."""

PACE = 0.005
"""Seconds from one job's event to the next one's."""


@dataclass(frozen=True)
class Options:
    clients: int
    idle: float
    followers: int
    events: int
    every: float


@dataclass(frozen=True)
class Side:
    """One of the three: its server, what many clients ask for, and what the followers of one job ask for."""

    server: Server
    paths: list[str]
    followed: str
    first_event: int
    write: Write
    redis: RedisServer
    own_redis_clients: int
    """Those of this benchmark."""

    @property
    def pid(self) -> int:
        return self.server.process.pid


@asynccontextmanager
async def listening(port: int, paths: list[str]) -> AsyncIterator[tuple[Process, float]]:
    """Clients that are connected, and the seconds that this took. Raises ValueError if one was refused."""
    async with started("benchmarks.listeners", str(port)) as clients:
        told = json.loads(await tell(clients, json.dumps(paths).encode()))
        if told["connected"] != len(paths):
            raise ValueError(f"{told['connected']} of {len(paths)} clients connected")
        yield clients, told["seconds"]


async def idle_clients(side: Side, options: Options) -> dict[str, float]:
    async with listening(side.server.port, side.paths[:FEW]):
        pass
    await asyncio.sleep(1)
    memory, cpu = memory_of([side.pid]), cpu_of([side.pid])
    async with listening(side.server.port, side.paths) as (clients, seconds):
        connecting = cpu_of([side.pid]) - cpu
        at_redis = await redis_clients(side.redis) - side.own_redis_clients
        redis_cpu, cpu = cpu_of([side.redis.process.pid]), cpu_of([side.pid])
        await asyncio.sleep(options.idle)
        idle = cpu_of([side.pid]) - cpu
        redis_idle = cpu_of([side.redis.process.pid]) - redis_cpu
        memory = memory_of([side.pid]) - memory
        generator = cpu_of([clients.pid])
    count = len(side.paths)
    per_thousand = 1000 / options.idle / count * 1000
    return {
        "kB each": memory / 1024 / count,
        "connect CPU-ms": connecting * 1000 / count,
        "connects a second": count / seconds,
        "idle, CPU-ms a second per 1000": idle * per_thousand,
        "and of Redis": redis_idle * per_thousand,
        "Redis clients": float(at_redis),
        "client's CPU-ms": generator * 1000 / count,
    }


async def own_events(side: Side, options: Options) -> dict[str, float]:
    """From just before an event of a job is written to its arrival at the one who follows that job."""
    written: list[float] = []
    async with listening(side.server.port, side.paths[: options.followers]) as (clients, _):
        await asyncio.sleep(1)
        for client in range(options.followers):
            written.append(time.time())
            await side.write(client, side.first_event)
            await asyncio.sleep(PACE)
        arrived = json.loads(await tell(clients, b"when?"))
    delays = [
        (when - written[client]) * 1000
        for client in range(options.followers)
        if (when := arrived.get(f"{client}:{side.first_event}")) is not None
    ]
    return {
        "own event p50 ms": percentile(delays, 50),
        "own p99 ms": percentile(delays, 99),
        "own lost": float(options.followers - len(delays)),
    }


async def fan_out(side: Side, options: Options) -> dict[str, float]:
    """From just before an event is written to its arrival at each follower."""
    written: dict[int, float] = {}
    paths = [side.followed] * options.followers
    async with listening(side.server.port, paths) as (clients, _):
        await asyncio.sleep(1)
        cpu, clients_cpu = cpu_of([side.pid]), cpu_of([clients.pid])
        for number in range(side.first_event, side.first_event + options.events):
            written[number] = time.time()
            await side.write(None, number)
            await asyncio.sleep(options.every)
        cpu, clients_cpu = cpu_of([side.pid]) - cpu, cpu_of([clients.pid]) - clients_cpu
        arrived = json.loads(await tell(clients, b"when?"))
    numbers = ((int(key.partition(":")[2]), when) for key, when in arrived.items())
    delays = [(when - written[number]) * 1000 for number, when in numbers if number in written]
    sent = options.events * options.followers
    return {
        "fan-out p50 ms": percentile(delays, 50),
        "p99 ms": percentile(delays, 99),
        "CPU-ms each": cpu * 1000 / sent,
        "client's CPU-ms each": clients_cpu * 1000 / sent,
        "lost": float(sent - len(delays)),
    }


async def redis_clients(redis: RedisServer) -> int:
    """Connections to it, but for the one that asks."""
    ledger = Ledger.connect(settings_of(redis))
    try:
        info = await ledger.client.info("clients")
        return int(info["connected_clients"]) - 1
    finally:
        await ledger.close()


def settings_of(redis: RedisServer) -> JobsSettings:
    return JobsSettings.model_validate({"redis_url": redis.url, "lease": LEASE})


@asynccontextmanager
async def bunri(options: Options) -> AsyncIterator[Side]:
    async with redis_server() as redis:
        ledger = Ledger.connect(settings_of(redis))
        jobs = [new_job(deadline=DEADLINE) for _ in range(options.clients + 1)]
        for start in range(0, len(jobs), CREATED_TOGETHER):
            await asyncio.gather(*map(ledger.submissions.create, jobs[start : start + CREATED_TOGETHER]))
        followed, *others = (job.job_id for job in jobs)
        claims = {job_id: await claimed(ledger, job_id) for job_id in (followed, *others[: options.followers])}
        first = len(await ledger.submissions.events(followed)) + 1

        async def write(client: int | None, number: int) -> None:
            claim = claims[followed if client is None else others[client]]
            await ledger.claims.record(claim, stage_started(Stage.FETCH), write=number)

        paths = [f"/api/v1/scan/{job_id}/events" for job_id in others]
        own = await redis_clients(redis)
        async with api_server(redis.url) as server:
            yield Side(server, paths, f"/api/v1/scan/{followed}/events", first, write, redis, own)
        await ledger.close()


async def claimed(ledger: Ledger, job_id: str) -> Claim:
    claim = await ledger.claims.claim(job_id)
    assert claim is not None  # noqa: S101 - it was just made
    return claim


@asynccontextmanager
async def bare(options: Options) -> AsyncIterator[Side]:
    async with redis_server() as redis, bare_server(redis.url) as server, aiohttp.ClientSession() as http:

        async def write(client: int | None, number: int) -> None:
            async with http.post(f"{server.url}/tell/{name_of(client)}", data=bare_event(number)) as response:
                await response.read()

        yield Side(server, bare_paths(options), "/follow/all", 1, write, redis, 0)


@asynccontextmanager
async def transports(options: Options) -> AsyncIterator[Side]:
    async with redis_server() as redis, started("benchmarks.transports") as process:

        async def write(client: int | None, number: int) -> None:
            told = {"path": f"/follow/{name_of(client)}", "event": bare_event(number)}
            await tell(process, json.dumps(told).encode())

        server = Server("floor", int(await line_of(process)), process)
        yield Side(server, bare_paths(options), "/follow/all", 1, write, redis, 0)


def bare_paths(options: Options) -> list[str]:
    return [f"/follow/{client}" for client in range(options.clients)]


def name_of(client: int | None) -> str:
    return "all" if client is None else str(client)


def bare_event(number: int) -> str:
    """As long as one of ours."""
    return f'event: fetch\nid: {number}\ndata: {{"seq": {number}, "padding": "{"x" * 150}"}}\n\n'


async def measure(options: Options) -> list[Row]:
    rows: list[Row] = []
    for name, opened in (("floor", transports), ("bare", bare), ("bunri", bunri)):
        async with opened(options) as side:
            waiting = await idle_clients(side, options)
            await eventually(partial(has_noticed, side), within=60)
            own = await own_events(side, options)
            await eventually(partial(has_noticed, side), within=60)
            rows.append({"": name, **waiting, **own, **await fan_out(side, options)})
    floor, bare_one, ours = rows
    return [*rows, compared(ours, bare_one, {"": "bunri ÷ bare"}), compared(ours, floor, {"": "bunri ÷ floor"})]


async def has_noticed(side: Side) -> bool:
    """That its clients have gone: what it does for each of them is done."""
    before = cpu_of([side.pid])
    await asyncio.sleep(1)
    return cpu_of([side.pid]) - before < 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=5000, help="that wait, each for a job of its own")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds for which they do")
    parser.add_argument("--followers", type=int, default=1000, help="of one job")
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two events")
    options = Options(**vars(parser.parse_args()))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # The servers inherit it.
    report = Report("sse")
    rows = asyncio.run(measure(options))
    report.print(
        rows,
        f"{options.clients} clients wait {options.idle:g} s; {options.followers} have one event of a job of their own, "
        f"{1 / PACE:g} a second; as many follow one job of {options.events} events, one each {options.every:g} s.",
        f"open files allowed: {hard}",
    )


if __name__ == "__main__":
    main()
