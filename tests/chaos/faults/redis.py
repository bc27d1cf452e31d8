"""Redis that dies, hangs, is full, wrong or away, and clocks that jump (F07 to F14, F27, F28)."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.oracle import p99
from tests.chaos.registry import fault
from tests.chaos.rig import Rig, redis_client, wait_for
from tests.support.wait import eventually

REFUSED_WITHIN = 3.0
"""Seconds until a submit is answered while Redis is paused."""


async def recovery(rig: Rig, back: float, *, limit: float) -> None:
    """From Redis's return to the end of the first job that was claimed after it."""
    rig.recovered = await rig.first_end_after(back, within=90)
    rig.demand_within(limit, rig.recovered, "until consumption went on")


def demand_refusals(rig: Rig, began: float, ended: float) -> None:
    """In this time submits were refused with a typed 503, and soon."""
    refused = [each for each in rig.submits_between(began, ended - 1) if each.status != 202]
    rig.demand(refused, "no submit was refused")
    rig.demand(all(each.status == 503 for each in refused), f"submits met {sorted({each.status for each in refused})}")
    slowest = max((each.seconds for each in refused), default=0.0)
    rig.demand_within(REFUSED_WITHIN, slowest, "until a submit was refused")
    rig.note(f"{len(refused)} submits refused, the slowest after {slowest:.2f} s")


@fault("F07", "kill -9 of Redis, back after 2 s with its append-only file", seconds=15)
async def f07(rig: Rig) -> None:
    """Nothing that was accepted is lost; work goes on within 10 s."""
    hold = rig.model.hold(rig.middle, "vision")
    await wait_for(hold.caught)
    back = await rig.kill_redis(down=2)
    hold.release()
    await recovery(rig, back, limit=10)


@fault("F08", "Redis loses everything (FLUSHALL)", seconds=15)
async def f08(rig: Rig) -> None:
    """Each job accepted before is told to be gone, typed, or completes; new work goes on within 10 s."""
    hold = rig.model.hold(rig.middle, "vision")
    await wait_for(hold.caught)
    at = time.time()
    early = [job for job in rig.watched if job.is_accepted]
    client = redis_client(rig)
    await client.flushall()
    await client.aclose()
    rig.disrupted("lose redis", at)
    hold.release()
    for job in rig.watched:
        if job in early or job.submits:
            rig.expect(job.number, "completed", "job.not_found", "job.expired")
    await recovery(rig, time.time(), limit=10)
    rig.note(f"{len(early)} jobs had been accepted")


@fault("F09", "Redis paused for 10 s", seconds=20)
async def f09(rig: Rig) -> None:
    """Submits are refused within 3 s, and one key stays one job; what a model answered meanwhile is not asked again."""
    await play_pause(rig, 10, limit=10)


@fault("F10", "Redis paused for 90 s", seconds=20)
async def f10(rig: Rig) -> None:
    """Workers leave their half-open connections and go on within 30 s, without a restart."""
    await play_pause(rig, 90, limit=30)


async def play_pause(rig: Rig, seconds: float, *, limit: float) -> None:
    hold = rig.model.hold(rig.middle, "vision")
    await wait_for(hold.caught)
    began = time.time()
    pausing = asyncio.create_task(rig.pause_redis(seconds))
    await asyncio.sleep(1)
    hold.release()  # Its result comes while nobody can write it down.
    back = await pausing
    await recovery(rig, back, limit=limit)
    demand_refusals(rig, began, back)
    probes = [each.seconds or 9.0 for each in rig.probes if began <= each.at <= back]
    rig.note(f"/healthz p99 {p99(probes) * 1000:.0f} ms meanwhile")
    rig.demand(not rig.has_killed_a_worker and all(worker.is_alive for worker in rig.workers), "a worker died")


@fault("F11", "every connection to Redis is reset every 2 s, for 30 s", wired=True, seconds=40)
async def f11(rig: Rig) -> None:
    """No worker gets stuck, and none leaks connections."""
    await rig.accepted(0)
    for _ in range(15):
        await asyncio.sleep(2)
        at = time.time()
        for wire in rig.wires.values():
            wire.reset()
        rig.disrupted("reset", at)
    await recovery(rig, at, limit=10)


@fault("F12", "Redis is full (maxmemory, noeviction)", seconds=20)
async def f12(rig: Rig) -> None:
    """New jobs are refused with a typed 503, running ones finish, and all goes on when there is room."""
    hold = rig.model.hold(rig.middle, "vision")
    await wait_for(hold.caught)
    client = redis_client(rig)
    began = time.time()
    await client.config_set("maxmemory", "1mb")
    await asyncio.sleep(1)
    hold.release()
    await asyncio.sleep(7)
    finished = await rig.has_ended(rig.middle)
    await client.config_set("maxmemory", "0")
    await client.aclose()
    back = time.time()
    rig.disrupted("full redis", began, back)
    await recovery(rig, back, limit=10)
    demand_refusals(rig, began, back)
    rig.demand(finished, "a job that ran did not finish while Redis was full")


@fault("F13-policy", "Redis may evict (allkeys-lru)")
async def f13_policy(rig: Rig) -> None:
    """/readyz is 503 within 10 s and says so."""
    await play_f13(
        rig, ("maxmemory-policy", "allkeys-lru"), ("maxmemory-policy", "noeviction"), says="maxmemory-policy"
    )


async def play_f13(rig: Rig, wrong: tuple[str, str], right: tuple[str, str], *, says: str) -> None:
    await rig.accepted(rig.middle)
    client = redis_client(rig)
    at = time.time()
    await client.config_set(*wrong)
    try:
        await eventually(lambda: names_cause(rig, says), within=12, every=0.2)
    finally:
        rig.recovered = time.time() - at
        await client.config_set(*right)
        await client.aclose()
    rig.demand_within(10, rig.recovered, "until /readyz named the cause")
    rig.note("recovered: until /readyz named the cause")


async def names_cause(rig: Rig, *texts: str) -> bool:
    answer = await rig.ready()
    return answer is not None and answer.status_code == 503 and any(text in answer.text for text in texts)


@fault("F13-replica", "Redis has become a read-only replica", seconds=20)
async def f13_replica(rig: Rig) -> None:
    """/readyz is 503 within 10 s and says so; submits are refused; all goes on when it is the master again."""
    await rig.accepted(rig.middle)
    client: Any = redis_client(rig)
    began = time.time()
    await client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        await eventually(lambda: names_cause(rig, "READONLY", "read-only", "replica"), within=12, every=0.2)
        rig.note(f"/readyz named the cause after {time.time() - began:.1f} s")
        await asyncio.sleep(3)
    finally:
        await client.execute_command("REPLICAOF", "NO", "ONE")
        await client.aclose()
    back = time.time()
    rig.disrupted("replica", began, back)
    await recovery(rig, back, limit=10)


@fault("F14", "API and workers start without Redis", started=False)
async def f14(rig: Rig) -> None:
    """The API comes up and says 503, the workers wait for ever; all is well within 10 s of Redis's coming."""
    rig.redis.kill()
    at = time.time()
    for process in rig.processes.values():
        process.start()
    await eventually(rig.is_up, within=60)
    rig.disrupted("no api", at - 5)
    answer = await rig.ready()
    rig.demand(answer is not None and answer.status_code == 503, f"/readyz said {answer and answer.status_code}")
    await asyncio.sleep(12)
    rig.demand(all(process.is_alive for process in rig.processes.values()), "a process gave up")
    await asyncio.to_thread(rig.redis.restart)
    back = time.time()
    rig.disrupted("kill redis", at, back)
    await recovery(rig, back, limit=10)
    await eventually(lambda: rig.has_workers(2), within=10)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 8 MB on the folder. Raises AssertionError where this user may mount none."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False)
    assert done.returncode == 0, "nothing can be mounted: F27 needs root"
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


@fault("F27", "the disk of Redis's append-only file is full", seconds=60, started=False)
async def f27(rig: Rig) -> None:
    """Submits are refused with a typed 503 while Redis answers MISCONF; all goes on when there is room."""
    rig.redis.kill()
    at = time.time()
    rig.stack.enter_context(small_disk(rig.redis.folder))
    await asyncio.to_thread(rig.redis.restart)
    for process in rig.processes.values():
        process.start()
    await rig.until_ready()
    rig.disrupted("no api", at - 5)
    await rig.accepted(rig.middle)
    began = time.time()
    ballast = rig.redis.folder / "ballast"
    _fill(ballast)
    await asyncio.sleep(8)
    ballast.unlink()
    back = time.time()
    rig.disrupted("full disk of redis", began, back)
    await recovery(rig, back, limit=15)
    demand_refusals(rig, began, back)
    rig.demand(all(worker.is_alive for worker in rig.workers), "a worker died")


def _fill(file: Path) -> None:
    try:
        with file.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(65_536))
    except OSError:
        pass
