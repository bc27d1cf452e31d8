"""What the guarantees cost: CPU of a job under the ledger, less that of a bare task: `python -m benchmarks.guarantees`.

The same pipeline, photo, stand-in for the model, pool and number of jobs at once, in turns; the median of the rounds.
A worker is stopped (SIGSTOP) while the jobs are submitted, so that submitting and working are measured apart. The
difference is all that Bunri adds: record, lease, checkpoints, events, gate, result cache, sweep, webhooks' place. Both
workers send task events, for Flower.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import uvloop
from celery import Celery

from benchmarks import bare_worker
from benchmarks.processes import cpu_of, family
from jobs.broker.queue import JobQueue
from jobs.ledger.ledger import Ledger
from jobs.model import JobStatus
from jobs.redis.keys import COUNTS, WORKERS
from jobs.settings import JobsSettings
from pipeline.types import JobInput
from tests.support.image_server import folder_server
from tests.support.jobs import new_job
from tests.support.openai_server import base_url, late, openai_server, well_behaved
from tests.support.redis_server import RedisServer, start_redis
from tests.support.wait import wait_until
from workers.command import worker_command

LIMIT = 3.0
"""CPU-ms per job."""

WARM_UP = 50
AT_ONCE = 100
LATENCY = 0.2
PHOTO = "glass-1.jpg"

Submit = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Cost:
    """CPU-ms per job, by process."""

    submit: float
    worker: float
    redis: float

    @property
    def whole(self) -> float:
        return self.submit + self.worker + self.redis


@dataclass
class Variant:
    """`submit` makes so many jobs; `done` says how many have ended since `forget` was called."""

    worker: subprocess.Popen[bytes]
    submit: Submit
    done: Callable[[], int]

    async def round(self, jobs: int, server: RedisServer) -> Cost:
        before = self.done()
        redis_before, own_before = cpu_of([server.process.pid]), time.process_time()
        self.worker.send_signal(signal.SIGSTOP)
        await self.submit(jobs)
        submitting = time.process_time() - own_before
        worker_before = cpu_of(family(self.worker.pid))
        self.worker.send_signal(signal.SIGCONT)
        while self.done() - before < jobs:  # noqa: ASYNC110 - they end in another process
            await asyncio.sleep(0.25)
        working = cpu_of(family(self.worker.pid)) - worker_before
        storing = cpu_of([server.process.pid]) - redis_before
        return Cost(*(seconds / jobs * 1000 for seconds in (submitting, working, storing)))


@contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@contextmanager
def bare(server: RedisServer, env: dict[str, str], url: str) -> Iterator[Variant]:
    command = worker_command(1, AT_ONCE)
    command[command.index("workers")] = "benchmarks.bare_worker"
    app = Celery("sender", broker=server.url, set_as_current=False)
    app.conf.task_ignore_result = True
    client = redis.Redis.from_url(server.url)

    async def submit(jobs: int) -> None:
        for number in range(jobs):
            job_id = f"{time.time()}-{number}"
            app.send_task(bare_worker.TASK, (job_id, url, str(number)), queue=bare_worker.QUEUE)

    def done() -> int:
        return sum(1 for _ in client.scan_iter(f"{bare_worker.RESULT_PREFIX}*", count=1000))

    with running(command, env | {"BARE_BROKER": server.url}) as process:
        wait_until(lambda: bool(client.exists(bare_worker.READY)), within=60)
        yield Variant(process, submit, done)


@contextmanager
def bunri(server: RedisServer, env: dict[str, str], url: str) -> Iterator[Variant]:
    settings = JobsSettings.model_validate({"redis_url": server.url})
    client = redis.Redis.from_url(server.url)
    asked = 0

    async def submit(jobs: int) -> None:
        nonlocal asked
        ledger, queue = Ledger.connect(settings), JobQueue.connect(settings)
        for _ in range(jobs):
            asked += 1  # Each question is another, so that the result cache answers none.
            job = new_job(deadline=600).model_copy(update={"input": JobInput(image_url=url, user_input=str(asked))})
            await ledger.submissions.create(job)
            await queue.enqueue(job.job_id)
        await queue.close()
        await ledger.close()

    def done() -> int:
        return int(client.hget(COUNTS, JobStatus.COMPLETED) or 0)

    with running(worker_command(1, AT_ONCE), env | {"REDIS_URL": server.url}) as process:
        wait_until(lambda: client.zcard(WORKERS) > 0, within=60)
        yield Variant(process, submit, done)


async def measure(jobs: int, rounds: int) -> dict[str, list[Cost]]:
    samples = Path(__file__).parent.parent / "samples"
    with (
        tempfile.TemporaryDirectory() as folder,
        openai_server(fallback=lambda request: late(well_behaved(request), LATENCY)) as model,
        folder_server(samples) as origin,
    ):
        server = start_redis(Path(folder))
        env = {"FETCH_ALLOW": "127.0.0.1", "OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": base_url(model)}
        url = origin.url(f"/{PHOTO}")
        costs: dict[str, list[Cost]] = {"bare": [], "bunri": []}
        try:
            with bare(server, env, url) as plain, bunri(server, env, url) as full:
                for variant in (plain, full):
                    await variant.round(WARM_UP, server)
                for _ in range(rounds):
                    costs["bare"].append(await plain.round(jobs, server))
                    costs["bunri"].append(await full.round(jobs, server))
        finally:
            server.stop()
    return costs


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, part) for cost in costs) for part in ("submit", "worker", "redis")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=400, help="in one round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    costs = {name: median(found) for name, found in uvloop.run(measure(options.jobs, options.rounds)).items()}
    added = costs["bunri"].whole - costs["bare"].whole
    print(
        f"{options.rounds} × {options.jobs} jobs, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; CPU-ms per job"
    )
    print(f"{'':<8}{'submit':>8}{'worker':>8}{'redis':>8}{'whole':>8}")
    for name, cost in costs.items():
        print(f"{name:<8}{cost.submit:>8.2f}{cost.worker:>8.2f}{cost.redis:>8.2f}{cost.whole:>8.2f}")
    print(f"added   {added:>32.2f}  (at most {LIMIT})")
    print(json.dumps({name: vars(cost) for name, cost in costs.items()} | {"added_ms": round(added, 2)}))
    sys.exit(added > LIMIT)


if __name__ == "__main__":
    main()
