"""Does throughput grow with processes, and what does one Redis carry: `python -m benchmarks.scaling`.

The load of `load.py` on stacks of one to three workers and one or two API processes, with more users than one worker
can serve; and the commands that Redis has executed for each completed job.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.load import Row, measure, model_server, photo_file
from cli.stack.ports import reserve_from
from cli.stack.stack import Stack, StackOptions, running_stack
from jobs.redis.keys import COUNTS
from tests.support.wait import eventually

SHAPES = ((1, 1), (1, 2), (2, 3))
"""API processes and workers."""

CONCURRENCY = 400
FIRST_PORT = 8100


@dataclass(frozen=True)
class Shape:
    apis: int
    workers: int
    commands_per_job: float
    redis_ms_per_job: float
    load: Row


def redis_url(stack: Stack, data_dir: Path) -> str:
    """With the password, which the stack tells nobody."""
    lines = (data_dir / "redis" / "redis.conf").read_text().splitlines()
    password = next(line.removeprefix("requirepass ") for line in lines if line.startswith("requirepass "))
    return f"redis://:{password}@{stack.redis.partition(',')[0]}/0"


@asynccontextmanager
async def further_api(url: str, env: dict[str, str]) -> AsyncIterator[str]:
    """Another API process on the same Redis; its URL."""
    reserved = reserve_from(FIRST_PORT)
    more = {"API_HOST": "127.0.0.1", "API_PORT": str(reserved.port), "REDIS_URL": url}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api"),
        env=os.environ | env | more,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # As the stack's: a kernel that shares time by session counted it to the users'.
    )
    try:
        await eventually(lambda: _listens(reserved.port), within=30)
        yield f"http://127.0.0.1:{reserved.port}"
    finally:
        process.terminate()
        await process.wait()
        reserved.release()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def commands(redis: Redis) -> tuple[int, float]:
    """Executed so far, those within scripts included, and their CPU seconds."""
    stats = await redis.info("stats")
    cpu = await redis.info("cpu")
    return int(stats["total_commands_processed"]), float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"])


async def measure_all(options: argparse.Namespace) -> AsyncIterator[Shape]:
    with tempfile.TemporaryDirectory() as folder:
        async with model_server(photo_file(Path(folder), "1")) as model:
            env = {
                "FETCH_ALLOW": "127.0.0.1",
                "RESULT_CACHE_TTL": "0",
                "OPENAI_API_KEY": "sk-bench",
                "OPENAI_BASE_URL": f"{model[0]}/v1",
                "LOG_LEVEL": "WARNING",
            }
            for apis, workers in SHAPES:
                stack_options = StackOptions(
                    Path(folder) / f"{apis}-{workers}",
                    workers=workers,
                    concurrency=CONCURRENCY,
                    with_flower=False,
                    env=env,
                    is_private=True,
                )
                async with running_stack(stack_options) as stack:
                    url = redis_url(stack, stack_options.data_dir)
                    redis = Redis.from_url(url)
                    before = await commands(redis)
                    if apis == 1:
                        row = await measure(stack, model, options.users, options)
                    else:
                        async with further_api(url, env) as other:
                            row = await measure(stack, model, options.users, options, other)
                    after = await commands(redis)
                    # From the start of the load, so all its jobs count, those of the warm-up, too.
                    jobs = int((await redis.hgetall(COUNTS))[b"completed"])
                    await redis.aclose()
                    yield Shape(
                        apis,
                        workers,
                        round((after[0] - before[0]) / jobs, 1),
                        round((after[1] - before[1]) / jobs * 1000, 2),
                        row,
                    )


async def run(options: argparse.Namespace) -> None:
    shapes = []
    print(f"{options.users} users, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    async for shape in measure_all(options):
        shapes.append(asdict(shape))
        row = shape.load
        print(
            f"{shape.apis} API, {shape.workers} workers of {CONCURRENCY}: {row.per_minute:.0f} a minute, "
            f"{row.success:.2f} % ok, added p50 {row.added_p50:.0f} ms, CPU-ms a job {row.cpu_ours:.1f}; Redis: "
            f"{shape.commands_per_job} commands and {shape.redis_ms_per_job} CPU-ms a job",
            flush=True,
        )
    print(json.dumps({"cores": os.cpu_count(), "shapes": shapes}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=1200)
    parser.add_argument("--warm-up", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
