"""Processes that a benchmark starts, and what processes have cost: CPU and memory, from /proc."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")

LONGEST_LINE = 2**26

Process = asyncio.subprocess.Process


@asynccontextmanager
async def started(
    module: str, *arguments: str, env: Mapping[str, str] | None = None, heard: bool = True
) -> AsyncIterator[Process]:
    """`python -m module …`, killed in the end. What it says on stdout is ours to read, if it is `heard`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if heard else subprocess.DEVNULL,
        limit=LONGEST_LINE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_of(process: Process) -> bytes:
    """Raises EOFError when it has ended."""
    assert process.stdout is not None  # noqa: S101 - asked for
    if not (line := await process.stdout.readline()):
        raise EOFError(f"process {process.pid} ended")
    return line


async def tell(process: Process, line: bytes) -> bytes:
    """Give it a line; its answer."""
    assert process.stdin is not None  # noqa: S101 - asked for
    process.stdin.write(line + b"\n")
    await process.stdin.drain()
    return await line_of(process)


def family(pid: int) -> list[int]:
    """The process and those it has started, its decode process among them."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(each for found in children for child in found.read_text().split() for each in family(int(child)))]


def is_decoder(pid: int) -> bool:
    """Whether it is a worker's decode process."""
    return b"pipeline.intake.image" in Path(f"/proc/{pid}/cmdline").read_bytes()


def cpu_of(pids: Iterable[int]) -> float:
    """Seconds of user and system time so far."""
    return (
        sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13])) for pid in pids)
        / TICKS
    )


def thread_cpu_of(pids: Iterable[int]) -> float:
    """As `cpu_of`, to the nanosecond instead of a hundredth, but of threads only that still live."""
    threads = (thread for pid in pids for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def cpu_by_role(roles: Mapping[str, Iterable[int]]) -> dict[str, float]:
    return {role: cpu_of(pids) for role, pids in roles.items()}


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each role has used since; a role that is new, all it has."""
    return {role: value - before.get(role, 0.0) for role, value in after.items()}


def memory_of(pids: Iterable[int]) -> int:
    """Bytes in memory, pages that several processes share counted by their share (PSS)."""
    kilobytes = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024
