"""Kill processes of a real stack under load and see that no accepted job is lost: `python -m benchmarks.chaos`.

200 jobs at 10 a second, each two calls of a stand-in model; every 2 to 4 seconds one process is killed with SIGKILL.
Exits 1 unless every job that was answered with 202 has ended, and each one completed.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from client import ApiProblem, BunriClient
from tests.support.bunri import RunningBunri, running_bunri
from tests.support.image_server import Answer, ImageServer, Request, folder_server
from tests.support.openai_server import base_url, late, openai_server, purpose_of, well_behaved

JOBS = 200
VICTIMS = {"worker": "workers worker", "API": "-m api", "Redis": "redis-server", "decoder": "pipeline.image"}
DRAIN_SECONDS = 150.0
TRIES = 60


async def kill_until(stop: asyncio.Event, up: RunningBunri, chance: random.Random) -> Counter[str]:
    kills: Counter[str] = Counter()
    while not stop.is_set():
        await asyncio.sleep(chance.uniform(2, 4))
        victim = chance.choice(list(VICTIMS))
        if pids := up.pids(VICTIMS[victim]):
            os.kill(chance.choice(pids), signal.SIGKILL)
            kills[victim] += 1
    return kills


async def submit(client: BunriClient, url: str, number: int) -> str:
    """One job, as often as it takes, under one idempotency key."""
    await asyncio.sleep(number * 0.1)
    for _ in range(TRIES):
        try:
            return (await client.submit(f"{url}?n={number}", idempotency_key=f"job-{number}")).job_id
        except (ApiProblem, httpx.TransportError):
            await asyncio.sleep(0.5)
    raise TimeoutError(f"job {number} was never accepted")


async def fate(client: BunriClient, job_id: str) -> str:
    end = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < end:
        try:
            job = await client.job(job_id, wait=5)
        except ApiProblem as problem:
            if problem.code in {"job.not_found", "job.expired"}:
                return "lost"
        except httpx.TransportError:
            pass  # The API is being started again.
        else:
            if job.status.is_final:
                return job.error.code if job.error else str(job.status)
        await asyncio.sleep(0.5)
    return "not ended"


async def rampage(
    up: RunningBunri, origin: ImageServer, chance: random.Random
) -> tuple[Counter[str], list[str], list[str]]:
    """What was killed, the ids that were accepted, and how each ended."""
    stop = asyncio.Event()
    killing = asyncio.create_task(kill_until(stop, up, chance))
    async with BunriClient(up.api) as client:
        ids = await asyncio.gather(*(submit(client, origin.url("/glass-1.jpg"), number) for number in range(JOBS)))
        stop.set()
        kills = await killing
        return kills, ids, await asyncio.gather(*(fate(client, job_id) for job_id in ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    chance = random.Random(parser.parse_args().seed)  # noqa: S311 - which process dies
    calls: Counter[str] = Counter()

    def model(request: Request) -> Answer:
        calls[purpose_of(request)] += 1
        return late(well_behaved(request), chance.uniform(0.2, 1.0))

    samples = Path(__file__).parent.parent / "samples"
    with (
        tempfile.TemporaryDirectory() as folder,
        openai_server(fallback=model) as hosted,
        folder_server(samples) as origin,
    ):
        env = {
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": base_url(hosted),
            "FETCH_ALLOW": f"127.0.0.1:{origin.port}",
            "RESULT_CACHE_TTL": "0",
            "WORKERS_LEASE": "4",
        }
        with running_bunri(Path(folder) / "data", "--concurrency", "50", env=env) as up:
            kills, ids, fates = asyncio.run(rampage(up, origin, chance))
    print(f"killed: {dict(kills)}")
    print(f"accepted: {len(set(ids))} jobs, ended: {dict(Counter(fates))}, model calls: {dict(calls)}")
    sys.exit(len(set(ids)) != JOBS or set(fates) != {"completed"})


if __name__ == "__main__":
    main()
