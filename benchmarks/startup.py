"""How long things take to start: `python -m benchmarks.startup`.

The API to its first 200 of /healthz, a worker to its beat in Redis with the local model loaded, `bunri --help` to its
end; beside each what importing the library below it takes. In turns, all files read once before; medians.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import redis

from benchmarks.processes import cpu_of, family
from benchmarks.report import Report, Row, ratio
from jobs.redis.keys import WORKERS
from tests.support.redis_server import RedisServer, free_port, start_redis
from workers.command import worker_command

POLL = 0.005
LONGEST = 120.0
CELERY = "celery.bin.celery"
"""What the `celery` command imports: `import celery` by itself loads nothing until it is used."""

BUNRI = str(Path(sys.executable).with_name("bunri"))


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, and of CPU."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Start:
    """What is measured, the seconds that it may take, and what it is compared with."""

    name: str
    limit: float
    measure: Callable[[], Took]
    reference: str


def environment(**more: str) -> dict[str, str]:
    """Ours, with compiled modules kept: without them each start would compile our own anew. No key: the local model."""
    unwanted = {"PYTHONDONTWRITEBYTECODE", "OPENAI_API_KEY"}
    return {name: value for name, value in os.environ.items() if name not in unwanted} | more


def until_it_ends(command: list[str]) -> Took:
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    took = Took(time.perf_counter() - began, used.ru_utime + used.ru_stime)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return took


def until_ready(command: list[str], env: dict[str, str], is_ready: Callable[[], bool]) -> Took:
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not is_ready():
            if process.poll() is not None or time.perf_counter() - began > LONGEST:
                raise RuntimeError(f"{command} did not start")
            time.sleep(POLL)
        return Took(time.perf_counter() - began, cpu_of(family(process.pid)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def start_api(server: RedisServer) -> Took:
    port = free_port()

    def is_ready() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
                return bool(answer.status == 200)
        except (URLError, ConnectionError):
            return False

    env = environment(REDIS_URL=server.url, API_PORT=str(port))
    return until_ready([sys.executable, "-m", "api"], env, is_ready)


def start_worker(server: RedisServer) -> Took:
    with redis.Redis.from_url(server.url) as client:
        client.delete(WORKERS)
        env = environment(REDIS_URL=server.url)
        return until_ready(worker_command(1, 100), env, lambda: client.zcard(WORKERS) > 0)


def import_of(module: str) -> Took:
    return until_it_ends([sys.executable, "-c", f"import {module}"])


def measure(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            starts = [
                Start("API ready", 2.0, lambda: start_api(server), "fastapi"),
                Start("worker ready", 4.0, lambda: start_worker(server), CELERY),
                Start("bunri --help", 0.3, lambda: until_it_ends([BUNRI, "--help"]), "typer"),
            ]
            found: dict[str, list[tuple[Took, Took]]] = {start.name: [] for start in starts}
            for _ in range(rounds + 1):  # The first one reads the files.
                for start in starts:
                    found[start.name].append((start.measure(), import_of(start.reference)))
        finally:
            server.stop()
    return [row_of(start, found[start.name][1:]) for start in starts]


def row_of(start: Start, found: list[tuple[Took, Took]]) -> Row:
    wall, cpu, reference_wall, reference_cpu = (
        statistics.median(each)
        for each in (
            [ours.wall for ours, _ in found],
            [ours.cpu for ours, _ in found],
            [reference.wall for _, reference in found],
            [reference.cpu for _, reference in found],
        )
    )
    return {
        "seconds": start.name,
        "wall": wall,
        "CPU": cpu,
        "limit": start.limit,
        "reference": f"import {start.reference}",
        "its wall": reference_wall,
        "its CPU": reference_cpu,
        "ratio of CPU": ratio(cpu, reference_cpu),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report = Report("startup")
    report.print(measure(options.rounds), f"median of {options.rounds}; the limit is for the wall time")


if __name__ == "__main__":
    main()
