"""What queue and pipeline add to the model's own time, one warm job after the other: `python -m benchmarks.overhead`.

Starts the stack of `bunri demo` and submits one sample by URL, waiting for each to end before the next. Overhead is
the time from the moment the API took the job (or from the client's request) to its end, less the vision stage.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from cli.stack.stack import StackOptions, running_stack
from client import BunriClient, Job
from tests.support.image_server import folder_server

WARM_UP = 10
JOBS = 100
PHOTO = Path(__file__).parent.parent / "samples" / "glass-1.jpg"


async def measure() -> list[tuple[Job, float]]:
    """Each job with the seconds that its client waited."""
    with tempfile.TemporaryDirectory() as folder, folder_server(PHOTO.parent) as origin:
        env = {"FETCH_ALLOW": f"127.0.0.1:{origin.port}", "RESULT_CACHE_TTL": "0"}
        options = StackOptions(Path(folder), with_flower=False, env=env)
        async with running_stack(options) as stack, BunriClient(stack.api_url) as client:
            measured = [await one(client, origin.url(f"/{PHOTO.name}")) for _ in range(WARM_UP + JOBS)]
    return measured[WARM_UP:]


async def one(client: BunriClient, url: str) -> tuple[Job, float]:
    began = time.perf_counter()
    submitted = await client.submit(url)
    async for _ in client.follow(submitted.job_id):
        pass
    waited = time.perf_counter() - began
    return await client.job(submitted.job_id), waited


def main() -> None:
    measured = asyncio.run(measure())
    vision = [job.timings["vision"] or 0 for job, _ in measured]
    jobs = [(job.finished_at or 0) - job.created_at for job, _ in measured]
    samples = {
        "vision (the model)": vision,
        "job: queue + pipeline, without vision": [whole - own for whole, own in zip(jobs, vision, strict=True)],
        "client: submit to last event, without vision": [
            waited - own for (_, waited), own in zip(measured, vision, strict=True)
        ],
    }
    print(f"{JOBS} jobs, one at a time, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'ms':<46}{'median':>8}{'p95':>8}")
    figures = {}
    for name, seconds in samples.items():
        median, p95 = statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=20)[-1] * 1000
        figures[name] = {"median_ms": round(median, 1), "p95_ms": round(p95, 1)}
        print(f"{name:<46}{median:>8.1f}{p95:>8.1f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
