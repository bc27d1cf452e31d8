"""What processes have cost: CPU and memory, from /proc."""

import os
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and those it has started, its decode process among them."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(each for found in children for child in found.read_text().split() for each in family(int(child)))]


def cpu_of(pids: Iterable[int]) -> float:
    """Seconds of user and system time so far."""
    return (
        sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13])) for pid in pids)
        / TICKS
    )


def memory_of(pids: Iterable[int]) -> int:
    """Bytes in memory, pages that several processes share counted by their share (PSS)."""
    kilobytes = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024
