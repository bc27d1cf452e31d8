"""The headline: N users who scan again and again, everything on this machine: `python -m benchmarks.load`.

Each user submits one scan of a photo by URL, follows it by server-sent events to the end and starts again, for 60 s
after 20 s of warm-up. Users (`users.py`) and model (`model_server.py`) are processes of their own. The result cache is
off.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from PIL import Image

from benchmarks.processes import between, cpu_by_role, family, is_decoder, line_of, memory_of, started
from cli.stack.stack import Stack, StackOptions, running_stack

SIZES = {"1": (1152, 864), "12": (4032, 3024)}
"""Megapixels → pixels."""

NOISE, WHITE = 5.0, 255
"""Spread of the brightness of a pixel, and its largest value."""

USERS = (100, 250, 500, 1000, 2000)
PER_WORKER = 500
"""Jobs at once that a worker process has room for. More than its core can serve would only make all of them late."""

OURS = ("api", "worker", "decode", "redis")


@dataclass(frozen=True)
class Row:
    """One number of users. Latencies in ms, CPU in ms per completed job, memory in MB."""

    users: int
    success: float
    per_minute: float
    of_possible: float
    added_p50: float
    added_p95: float
    added_p99: float
    cpu: dict[str, float]
    cpu_ours: float
    memory: float
    calls_per_job: float
    failed: dict[str, int]


def photo_file(folder: Path, size: str) -> Path:
    """A real photo, enlarged, with the noise of a sensor: of as many bytes as one of a phone, 286 kB and 3.4 MB."""
    path = folder / f"{size}mp.jpg"
    with Image.open(Path(__file__).parent.parent / "samples" / "glass-1.jpg") as sample:
        pixels = np.asarray(sample.convert("RGB").resize(SIZES[size]), np.float32)
    noise = np.random.default_rng(0).normal(0, NOISE, pixels.shape[:2])
    noisy = np.clip(pixels + noise[..., np.newaxis], 0, WHITE).astype(np.uint8)
    Image.fromarray(noisy).save(path, quality=92)
    return path


@asynccontextmanager
async def model_server(photo: Path, *more: str) -> AsyncIterator[tuple[str, int]]:
    """Its URL and pid."""
    async with started("benchmarks.model_server", str(photo), *more) as process:
        yield (await line_of(process)).decode().strip(), process.pid


def pids_of(stack: Stack) -> dict[str, list[int]]:
    """Role → processes, those they started among them; decode processes are a role of their own."""
    found: dict[str, list[int]] = {}
    for process in stack.processes:
        name = process.command.name.partition("-")[0]
        if process.pid is not None:
            for pid in family(process.pid):
                found.setdefault("decode" if is_decoder(pid) else name, []).append(pid)
    return found


@dataclass(frozen=True)
class Window:
    """What became of the jobs that ended within it, and what they cost: seconds of CPU by role, bytes in memory.

    `added` and `waited` are seconds of those that completed.
    """

    added: list[float]
    waited: list[float]
    failed: dict[str, int]
    cpu: dict[str, float]
    memory: int
    calls: int

    @property
    def done(self) -> int:
        return len(self.added)


async def watch(stack: Stack, model: tuple[str, int], *arguments: str, apis: tuple[str, ...] = ()) -> Window:
    """Let users at the stack; `arguments` are those of `benchmarks.users`, `apis` the URLs of further API processes."""
    model_url, model_pid = model
    urls = ",".join((stack.api_url, *apis))
    async with started("benchmarks.users", urls, f"{model_url}/photo.jpg", *arguments) as process:
        others = {"users": [process.pid], "model": [model_pid]}
        await line_of(process)
        before, calls_before = cpu_by_role(others | pids_of(stack)), await calls(model_url)
        await line_of(process)
        after, calls_after = cpu_by_role(others | pids_of(stack)), await calls(model_url)
        memory = memory_of(pid for role, pids in pids_of(stack).items() for pid in pids if role in OURS)
        found = json.loads(await line_of(process))
    return Window(**found, cpu=between(before, after), memory=memory, calls=calls_after - calls_before)


async def measure(stack: Stack, model: tuple[str, int], users: int, options: argparse.Namespace, *apis: str) -> Row:
    arguments = (f"--users={users}", f"--warm-up={options.warm_up}", f"--seconds={options.seconds}")
    return row_of(users, await watch(stack, model, *arguments, apis=apis), options)


async def calls(model_url: str) -> int:
    """That the model has been asked so far."""
    return sum((await counts(model_url)).values())


async def counts(model_url: str) -> dict[str, int]:
    """Calls so far, by purpose."""

    def ask() -> dict[str, int]:
        with urlopen(f"{model_url}/stats") as answer:  # noqa: S310 - our own server
            found: dict[str, int] = json.load(answer)
            return found

    return await asyncio.to_thread(ask)


def row_of(users: int, window: Window, options: argparse.Namespace) -> Row:
    done, lost = window.done, sum(window.failed.values())
    model_time = (sum(window.waited) - sum(window.added)) / done
    percentiles = statistics.quantiles(window.added, n=100)
    per_job = {role: round(seconds * 1000 / done, 2) for role, seconds in window.cpu.items() if role != "flower"}
    return Row(
        users=users,
        success=round(100 * done / (done + lost), 3),
        per_minute=round(done * 60 / options.seconds),
        of_possible=round(100 * done / options.seconds / (users / model_time), 1),
        added_p50=round(percentiles[49] * 1000, 1),
        added_p95=round(percentiles[94] * 1000, 1),
        added_p99=round(percentiles[98] * 1000, 1),
        cpu=per_job,
        cpu_ours=round(sum(per_job[role] for role in OURS), 2),
        memory=round(window.memory / 1e6),
        calls_per_job=round(window.calls / done, 3),
        failed=window.failed,
    )


def stack_options(folder: Path, *, workers: int, concurrency: int, **env: str) -> StackOptions:
    """A stack of its own that may fetch from this machine and keeps no results for other jobs."""
    common = {"FETCH_ALLOW": "127.0.0.1", "RESULT_CACHE_TTL": "0", "LOG_LEVEL": "WARNING"}
    return StackOptions(
        folder, workers=workers, concurrency=concurrency, with_flower=False, env=common | env, is_private=True
    )


def hosted(model_url: str) -> dict[str, str]:
    """Environment of a stack whose model is this one."""
    return {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": f"{model_url}/v1"}


async def measure_all(options: argparse.Namespace) -> AsyncIterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        times = ["--vision", *map(str, options.vision), "--answer", *map(str, options.answer)]
        async with model_server(photo_file(Path(folder), options.megapixels), *times) as model:
            for users in options.users:
                at = Path(folder) / str(users)
                whole = stack_options(at, workers=options.workers, concurrency=PER_WORKER, **hosted(model[0]))
                async with running_stack(whole) as stack:
                    yield await measure(stack, model, users, options)


def show(row: Row) -> str:
    cpu = "  ".join(f"{role} {ms:.2f}" for role, ms in row.cpu.items())
    return (
        f"{row.users:>5} users: {row.success:.2f} % ok, {row.per_minute:.0f} a minute ({row.of_possible:.1f} %), "
        f"added p50 {row.added_p50:.0f} p95 {row.added_p95:.0f} p99 {row.added_p99:.0f} ms, "
        f"CPU-ms a job: ours {row.cpu_ours:.2f} ({cpu}), {row.memory:.0f} MB, {row.calls_per_job:.3f} calls"
        + (f", failed {row.failed}" if row.failed else "")
    )


async def run(options: argparse.Namespace) -> None:
    rows = []
    print(f"{options.megapixels} MP, {options.workers} workers, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    async for row in measure_all(options):
        rows.append(asdict(row))
        print(show(row), flush=True)
    print(json.dumps({"cores": os.cpu_count(), "megapixels": options.megapixels, "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, nargs="+", default=USERS)
    parser.add_argument("--megapixels", choices=SIZES, default="1")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--warm-up", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--vision", type=float, nargs=2, default=(4.0, 9.0), metavar=("MEDIAN", "P99"))
    parser.add_argument("--answer", type=float, nargs=2, default=(3.0, 7.0), metavar=("MEDIAN", "P99"))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
