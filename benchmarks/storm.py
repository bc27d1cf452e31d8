"""A minute in which the model turns every call away, under load: `python -m benchmarks.storm`.

200 jobs at 10 a second through a real stack with two workers, after some that warm it up. From the first call of these
200 on, a stand-in for the model answers 429 with `Retry-After: 2` for 60 seconds. Exits 1 unless all jobs complete
within a minute after that and the rejected calls are at most 5 % of the jobs.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from client import BunriClient
from tests.support.bunri import RunningBunri, running_bunri
from tests.support.image_server import Answer, ImageServer, Request, folder_server
from tests.support.openai_server import base_url, late, openai_server, problem, well_behaved

JOBS = 200
PER_SECOND = 10
MOST_REJECTED = 0.05
MOST_SECONDS_AFTER = 60.0
LATENCY = 0.3
POLL = 4.0
WARM_UP = 20


@dataclass
class Storm:
    """The model. It stays calm until the first call after it was armed."""

    seconds: float
    is_armed: bool = False
    ends_at: float | None = None
    calls: int = 0
    rejected: list[float] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        now = time.time()
        self.calls += self.is_armed
        if self.is_armed and self.ends_at is None:
            self.ends_at = now + self.seconds
        if now < (self.ends_at or 0):
            self.rejected.append(now)
            return problem(429, "rate_limit_exceeded", Retry_After="2")
        return late(well_behaved(request), LATENCY)


async def fate(client: BunriClient, url: str, number: int) -> tuple[str, float]:
    """How one job ended, and when by the ledger. Asks without waiting: 200 waits would take all connections."""
    await asyncio.sleep(number / PER_SECOND)
    accepted = await client.submit(url)
    while True:
        job = await client.job(accepted.job_id)
        if job.finished_at is not None:
            return (job.error.code if job.error else str(job.status)), job.finished_at
        await asyncio.sleep(POLL)


async def weather(up: RunningBunri, origin: ImageServer, storm: Storm) -> list[tuple[str, float]]:
    url = origin.url("/glass-1.jpg")
    async with BunriClient(up.api) as client:
        await asyncio.gather(*(fate(client, url, number) for number in range(WARM_UP)))
        storm.is_armed = True
        origin.requests.clear()
        return await asyncio.gather(*(fate(client, url, number) for number in range(JOBS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the storm lasts")
    storm = Storm(parser.parse_args().seconds)
    samples = Path(__file__).parent.parent / "samples"
    with (
        tempfile.TemporaryDirectory() as folder,
        openai_server(fallback=storm.answer) as hosted,
        folder_server(samples) as origin,
    ):
        env = {
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": base_url(hosted),
            "FETCH_ALLOW": f"127.0.0.1:{origin.port}",
            "RESULT_CACHE_TTL": "0",
            "WORKERS_JOB_DEADLINE": "300",
        }
        with running_bunri(Path(folder) / "data", "--workers", "2", "--concurrency", "50", env=env) as up:
            ends = asyncio.run(weather(up, origin, storm))
    assert storm.ends_at is not None, "no call was made"  # noqa: S101 - it is a measurement
    began = storm.ends_at - storm.seconds
    after = max(when for _, when in ends) - storm.ends_at
    share = len(storm.rejected) / JOBS
    print(f"jobs: {JOBS}, ended: {dict(Counter(how for how, _ in ends))}, photos fetched: {len(origin.requests)}")
    print(f"model calls: {storm.calls}, rejected: {len(storm.rejected)} ({share:.1%} of the jobs)")
    print(f"all done {after:.1f} s after the storm")
    print(f"rejected at: {', '.join(f'{when - began:.1f}' for when in storm.rejected)} s")
    completed = all(how == "completed" for how, _ in ends)
    sys.exit(not completed or share > MOST_REJECTED or after > MOST_SECONDS_AFTER)


if __name__ == "__main__":
    main()
