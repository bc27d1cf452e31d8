"""Workers that die, hang, come back late or are told to stop (F01 to F06, F29, F30, F32)."""

import asyncio
import re
import signal
import struct
import time
import zlib
from functools import partial

from jobs.broker.queue import JobQueue
from jobs.settings import JobsSettings
from tests.chaos.processes import Process, send
from tests.chaos.registry import fault
from tests.chaos.rig import Rig, wait_for
from tests.chaos.upstreams import LATENCY, Hold
from tests.support.image_server import reply
from tests.support.relay import Way
from tests.support.wait import eventually

LEASE = 15.0
"""Seconds, as is the default."""

RESTART_LIMIT = 20.0
"""Seconds from the death of a worker until its jobs run again, by the issue; a lease lasts 15."""

SWEEP_LIMIT = 30.0
"""For a message that vanished with its worker: it is sent again 15 s after the job was recorded."""


async def kill_at(rig: Rig, hold: Hold, job: int) -> None:
    """SIGKILL for the worker that has the job, at the moment that the hold names; then see it run again."""
    await wait_for(hold.caught)
    worker = await rig.worker_of(job)
    at = await rig.kill_worker(worker)
    hold.release()
    await expect_restart(rig, job, at)


async def expect_restart(rig: Rig, job: int, at: float) -> None:
    rig.recovered = await rig.claimed_again(job, after=at)
    rig.demand_within(RESTART_LIMIT, rig.recovered, f"until job {job} ran again")
    await eventually(lambda: rig.has_ended(job), within=60)
    rig.demand(await attempts_are(rig, job, 2), f"job {job} did not end in its second attempt")


async def attempts_are(rig: Rig, job: int, count: int) -> bool:
    answer = await rig.http.get(f"/api/v1/scan/{rig.job(job).job_id}")
    return answer.is_success and answer.json()["attempts"] == count


@fault("F01-fetch", "kill -9 of a worker while it fetches a photo")
async def f01_fetch(rig: Rig) -> None:
    """The job runs again within 20 s and asks the origin once more."""
    await kill_at(rig, rig.origin.hold(rig.middle), rig.middle)


@fault("F01-vision", "kill -9 of a worker during the vision call")
async def f01_vision(rig: Rig) -> None:
    """The job runs again within 20 s; the call is made again because its result had not been received."""
    await kill_at(rig, rig.model.hold(rig.middle, "vision"), rig.middle)
    rig.demand(len(rig.model.calls_of(rig.middle, "vision")) == 2, "vision was not asked exactly twice")


@fault("F01-answer", "kill -9 of a worker during the answer call")
async def f01_answer(rig: Rig) -> None:
    """The job goes on after its last checkpoint: vision is not asked again."""
    await kill_at(rig, rig.model.hold(rig.middle, "answer"), rig.middle)
    rig.demand(len(rig.model.calls_of(rig.middle, "vision")) == 1, "vision was asked again")


@fault("F01-decode", "kill -9 of a worker and its decode process while a photo is in it")
async def f01_decode(rig: Rig) -> None:
    """The job runs again within 20 s."""
    job = rig.middle
    await freeze_decoders(rig, job)
    worker = await rig.worker_of(job)
    at = await rig.kill_worker(worker)
    thaw_decoders(rig)
    await expect_restart(rig, job, at)


@fault("F01-decoder", "kill -9 of the decode process alone")
async def f01_decoder(rig: Rig) -> None:
    """The photo is decoded again by another process; no attempt of the job is lost, no other job notices."""
    job = rig.middle
    await freeze_decoders(rig, job)
    worker = await rig.worker_of(job)
    for pid in worker.decoders():
        send(pid, signal.SIGKILL)
    thaw_decoders(rig)


@fault("F01-store", "kill -9 of a worker whose final write is on its way to Redis", wired=True)
async def f01_store(rig: Rig) -> None:
    """The job runs again after its last checkpoint: only what died with the write, the answer, is asked for again."""
    job = rig.middle
    hold = rig.model.hold(job, "answer")
    await wait_for(hold.caught)
    # The script's arguments: job, token, status.
    finish = re.compile(rig.job(job).job_id.encode() + rb"\r\n\$\d+\r\n\d+\r\n\$9\r\ncompleted\r\n")
    worker = await rig.worker_of(job)
    trap = rig.wires[worker.name].trap(lambda data: bool(finish.search(data)))
    hold.release()
    await wait_for(trap.caught)
    await expect_restart(rig, job, await rig.kill_worker(worker))
    rig.demand(len(rig.model.calls_of(job, "vision")) == 1, "vision was asked again")
    rig.demand(len(rig.model.calls_of(job, "answer")) == 2, "the answer was not asked exactly twice")


async def freeze_decoders(rig: Rig, job: int) -> None:
    """Stop the decode processes just before this job's photo arrives, so that it gets stuck in one."""
    hold = rig.origin.hold(job)
    await wait_for(hold.caught)
    for pid in all_decoders(rig):
        send(pid, signal.SIGSTOP)
    hold.release()
    await asyncio.sleep(0.5)  # It crosses a socket; nothing outside the worker can see it arrive.


def thaw_decoders(rig: Rig) -> None:
    for pid in all_decoders(rig):
        send(pid, signal.SIGCONT)


def all_decoders(rig: Rig) -> list[int]:
    return [pid for worker in rig.workers for pid in worker.decoders()]


@fault("F02", "kill -9 of a worker and its children; nobody starts it again")
async def f02(rig: Rig) -> None:
    """The other worker takes over every job that was in flight, within 20 s."""
    job = rig.middle
    hold = rig.model.hold(job, "vision")
    await wait_for(hold.caught)
    worker = await rig.worker_of(job)
    at = await rig.kill_worker(worker, restart=False)
    hold.release()
    await expect_restart(rig, job, at)


@fault("F03", "kill -9 between the broker's reply and the note that the message is out", wired=True)
async def f03(rig: Rig) -> None:
    """The message is gone from Redis and nobody knows of it: the job is sent again within 30 s. Celery loses it."""
    await rig.accepted(rig.middle)
    worker = rig.workers[0]
    trap = rig.wires[worker.name].trap(lambda data: b"bunri.run_job" in data, on=Way.IN, holds=Way.OUT)
    await wait_for(trap.caught)
    at = await rig.kill_worker(worker)
    found = re.search(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", trap.seen[trap.seen.index(b"bunri.run_job") :])
    assert found, "no job's message"
    await eventually(lambda: rig.knows(found[0].decode()))
    job = rig.number_of(found[0].decode())
    rig.recovered = await rig.claimed_again(job, after=at)
    rig.demand_within(SWEEP_LIMIT, rig.recovered, "until the lost message was sent again")


@fault("F04", "a job that takes down its worker each time")
async def f04(rig: Rig) -> None:
    """It ends as job.worker_lost after three attempts; every other job completes."""
    job = rig.middle
    rig.expect(job, "job.worker_lost")
    for attempt in range(1, 4):
        hold = rig.model.hold(job, "vision")
        await wait_for(hold.caught)
        worker = await rig.worker_of(job)
        await eventually(partial(attempts_are, rig, job, attempt))
        await rig.kill_worker(worker)
        hold.release()
    began = time.time()
    await eventually(lambda: rig.has_ended(job), within=40)
    rig.recovered = time.time() - began
    rig.note("recovered: from the third death to the verdict")


@fault(
    "F04-decoder",
    "a photo that takes down its decode process",
    simulated="SIGABRT to the process while it has the photo",
)
async def f04_decoder(rig: Rig) -> None:
    """It ends as source.corrupt_image at once; the worker lives on and no other job is slower than twice the usual."""
    job = rig.middle
    rig.expect(job, "source.corrupt_image")
    await freeze_decoders(rig, job)
    worker = await rig.worker_of(job)
    for pid in worker.decoders():
        send(pid, signal.SIGABRT)
    thaw_decoders(rig)
    await eventually(lambda: rig.has_ended(job))
    rig.demand(not worker.killed_at and worker.is_alive, "the worker died")


@fault(
    "F05",
    "a photo that needs more memory than it may",
    env={"PIPELINE_IMAGE_MAX_PIXELS_OTHER": "50000000", "PIPELINE_IMAGE_MEMORY_BYTES": "167772160"},
    simulated="a PNG of 48 MP, 144 MB of pixels, against a limit of 160 MB",
)
async def f05(rig: Rig) -> None:
    """It ends as source.too_large; the worker stays small and no other job notices."""
    job = rig.middle
    rig.expect(job, "source.too_large")
    rig.origin.misbehave(job, reply(200, await asyncio.to_thread(blank_png, 8000, 6000)))
    await rig.accepted(job)
    peak = 0
    while not await rig.has_ended(job):
        peak = max(peak, *(worker.footprint().kilobytes for worker in rig.workers))
    before = max(rig.baseline[worker.name].kilobytes for worker in rig.workers)
    rig.note(f"a worker with its decoder grew from {before // 1000} to {peak // 1000} MB at most")
    rig.demand(peak - before < 300_000, f"a worker grew by {(peak - before) // 1000} MB")


def blank_png(width: int, height: int) -> bytes:
    """All black: a few kB for as many pixels as one likes."""
    data = zlib.compress(bytes((1 + 3 * width) * height), 1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@fault(
    "F06",
    "photos that burn the CPU",
    env={"PIPELINE_IMAGE_CPU_SECONDS": "0.1", "PIPELINE_IMAGE_MAX_PIXELS_OTHER": "50000000"},
    simulated="a PNG of 48 MP, half a second of CPU, against a limit of 0.1 s",
)
async def f06(rig: Rig) -> None:
    """Each ends as source.too_large within its limit + 5 s, and the jobs beside it go on."""
    bombs = range(rig.middle, rig.middle + 4)
    png = await asyncio.to_thread(blank_png, 8000, 6000)
    for job in bombs:
        rig.expect(job, "source.too_large")
        rig.origin.misbehave(job, reply(200, png))
    for job in bombs:
        await rig.accepted(job)
        await eventually(partial(rig.is_told, job), within=30)
    slowest = max(rig.job(job).seconds for job in bombs)
    rig.demand_within(5.1, slowest, "until a bomb had ended")


@fault("F29", "every message of a job five times, and five more while it runs")
async def f29(rig: Rig) -> None:
    """One execution wins, the others leave: two calls of the model, one attempt."""
    queue = JobQueue.connect(JobsSettings.model_validate({"redis_url": rig.redis.url}))
    jobs = range(rig.middle, rig.middle + 5)
    holds = [rig.model.hold(job, "vision") for job in jobs]
    for job in jobs:
        job_id = await rig.accepted(job)
        await asyncio.gather(*(queue.enqueue(job_id) for _ in range(5)))
    for hold in holds:
        await wait_for(hold.caught)
    await asyncio.gather(*(queue.enqueue(rig.job(job).job_id) for job in jobs for _ in range(5)))
    for hold in holds:
        hold.release()
    await queue.close()
    for job in jobs:
        await eventually(partial(rig.has_ended, job))
        rig.demand(await attempts_are(rig, job, 1), f"job {job} was attempted more than once")
        rig.demand(len(rig.model.calls_of(job)) == 2, f"job {job} made {len(rig.model.calls_of(job))} calls")


@fault("F30", "a worker hangs for twice its lease and 5 s, and comes back")
async def f30(rig: Rig) -> None:
    """Another has finished its job by then; what it writes late is refused."""
    asleep = 2 * float(rig.options.env.get("WORKERS_LEASE", LEASE)) + 5
    job = rig.middle
    hold = rig.model.hold(job, "answer")
    await wait_for(hold.caught)
    worker = await rig.worker_of(job)
    at = time.time()
    worker.pause()
    hold.release()  # Its result waits for the worker that sleeps.
    rig.recovered = await rig.claimed_again(job, after=at)
    await asyncio.sleep(at + asleep - time.time())
    worker.resume()
    rig.disrupted(f"stop {worker.name}", at)
    await eventually(lambda: _is_refused(worker, rig.job(job).job_id), within=30)
    rig.demand(await rig.has_ended(job), "the other worker had not finished it")
    rig.note(f"asleep for {asleep:g} s")


async def _is_refused(worker: Process, job_id: str) -> bool:
    return any(each.get("job_id") == job_id for each in worker.events("job.claim_lost", "job.stopped"))


@fault("F32", "rolling restart: SIGTERM to one worker after the other, five times, during calls")
async def f32(rig: Rig) -> None:
    """Jobs in flight finish first and once: no call is made again, each exits with 0 within WORKERS_DRAIN + 2 s."""
    rig.model.latency = 1.5
    await rig.accepted(rig.middle)
    for turn in range(5):
        worker = rig.workers[turn % 2]
        began = time.monotonic()
        code = await asyncio.to_thread(worker.stop)
        rig.demand(code == 0, f"{worker.name} exited with {code}")
        rig.demand_within(7, time.monotonic() - began, f"until {worker.name} had stopped")
        worker.start()
        await rig.until_ready()
    rig.model.latency = LATENCY
    repeated = [job for job, count in rig.model.counts().items() if count > 2]
    rig.demand(not repeated, f"jobs {repeated} were asked again")


@fault("F32-idle", "SIGTERM to an idle worker")
async def f32_idle(rig: Rig) -> None:
    """It exits with 0 within 2 s."""
    await eventually(rig.have_all_ended, within=120)
    worker = rig.workers[0]
    began = time.monotonic()
    code = await asyncio.to_thread(worker.stop)
    rig.recovered = time.monotonic() - began
    rig.demand(code == 0, f"it exited with {code}")
    rig.demand_within(2, rig.recovered, "until it had exited")
    rig.note("recovered: until it had exited")
