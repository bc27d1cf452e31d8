"""The cheapest possible version of each step of a job beside Bunri's: `python -m benchmarks.floor`.

CPU of the process that does the step, and of those it has do it; the servers asked (`model_server.py`, Redis) are
processes of their own. In turns, so many at a time as under load; the median of the rounds. Then the sum over a job
beside a whole job on a real stack.
"""

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import cast

import aiohttp
import redis.asyncio as redis
import uvloop
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer, Producer

from benchmarks.bare_job import ANSWER, HEAD, TAIL, ask, body_of, get, shrink
from benchmarks.job import Cost, Options, cost_of
from benchmarks.load import OURS, model_server, photo_file
from benchmarks.noop_worker import DONE
from benchmarks.processes import family, is_decoder, thread_cpu_of
from benchmarks.report import Report, Row, ratio
from benchmarks.servers import redis_server
from jobs.broker.queue import JobQueue
from jobs.ids import new_job_id
from jobs.ledger.ledger import Ledger
from jobs.model import Claim
from jobs.settings import JobsSettings
from kit.address import AddressGuard
from pipeline.intake.decode import ImageDecoder
from pipeline.intake.fetch import Fetcher
from pipeline.knowledge.knowledge import Knowledge
from pipeline.models.hosted import HostedVision, VisionReply
from pipeline.models.openai.client import OpenAIClient
from pipeline.models.openai.responses import RequestTemplate
from pipeline.models.provider import Content, Prompt
from pipeline.settings import PipelineSettings
from pipeline.types import Candidate, Locale, SourceImage, Stage, Usage
from tests.support.jobs import completed, new_job
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually
from workers.command import worker_command

AT_ONCE = 32
BODY_BYTES = 200_000
SCRIPTS_A_JOB = 6
"""Without the result cache: create, claim, three steps, complete."""

DEADLINE = 600.0
KEPT = 5000
REPLY = VisionReply(
    middle_category="유리병",
    minor_category=None,
    situation_tags=[],
    confidence=0.9,
    candidates=[Candidate(middle_category="유리병", confidence=0.9)],
).model_dump_json()

Work = Callable[[int], Awaitable[object]]
"""Does a step so often."""


@dataclass(frozen=True)
class Step:
    """`times` in a job. `others` are processes that do some of the work."""

    name: str
    times: int
    floor: Work
    ours: Work
    others: Callable[[], Iterable[int]] = tuple
    is_elsewhere: bool = False
    """All of Bunri's is in the other processes, and what this one takes to wait for it does not count."""


async def cost(work: Work, times: int, others: Iterable[int], *, elsewhere: bool) -> float:
    """CPU-ms of one."""
    pids = list(others)
    before, cpu = thread_cpu_of(pids), time.process_time()
    await work(times)
    own = 0.0 if elsewhere else time.process_time() - cpu
    return (own + thread_cpu_of(pids) - before) * 1000 / times


def together(one: Callable[[], Awaitable[object]]) -> Work:
    """Again and again, so many at a time."""

    async def work(times: int) -> None:
        left = iter(range(times))

        async def worker() -> None:
            for _ in left:
                await one()

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))

    return work


def again(one: Callable[[], object]) -> Work:
    async def work(times: int) -> None:
        for _ in range(times):
            one()

    return work


class BodyOnly:
    """A provider that encodes each request and replies at once."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._settings = settings

    def prepare(self, prompt: Prompt) -> "EncodedPrompt":
        return EncodedPrompt(RequestTemplate(self._settings, prompt))

    async def close(self) -> None: ...


class EncodedPrompt:
    def __init__(self, template: RequestTemplate) -> None:
        self._template = template

    async def ask(self, *content: Content) -> tuple[str, Usage]:
        self._template.body(*content)
        return REPLY, Usage()

    async def stream(self, *content: Content, **_: object) -> tuple[str, Usage]:
        raise NotImplementedError(content)


async def pipeline_steps(photo: bytes, model: str, opened: AsyncExitStack) -> list[Step]:
    url, api = f"{model}/photo.jpg", f"{model}/v1"
    settings = PipelineSettings.model_validate(
        {"fetch_allow": "127.0.0.1", "openai_api_key": "sk-bench", "openai_base_url": api}
    )
    http = await opened.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    fetcher = Fetcher(settings, AddressGuard(settings.fetch_allow, settings.fetch_ports))
    opened.push_async_callback(fetcher.close)
    decoder = ImageDecoder(settings)
    opened.push_async_callback(decoder.close)
    client = OpenAIClient(settings, "sk-bench")
    opened.push_async_callback(client.close)
    knowledge = Knowledge.load(settings.resources)
    vision = HostedVision(BodyOnly(settings), "bare", knowledge.texts, knowledge.rulebook)
    image = SourceImage(media_type="image/jpeg", data=photo, width=1, height=1, sha256="")
    large = HEAD + b"A" * (BODY_BYTES - len(HEAD) - len(TAIL)) + TAIL
    return [
        Step("GET of the photo", 1, together(partial(get, http, url)), together(partial(fetcher.fetch, url))),
        Step(
            *("its check", 1, again(partial(shrink, photo)), together(partial(decoder.prepare, photo))),
            others=lambda: filter(is_decoder, family(os.getpid())[1:]),
        ),
        Step(
            *("base64 and JSON", 1, again(partial(body_of, photo))),
            together(partial(vision.observe, image, question="", locale=Locale.KO)),
        ),
        Step(
            *(f"POST of {BODY_BYTES // 1000} kB", 1, together(partial(ask, http, f"{api}/responses", large))),
            together(partial(client.ask, "bare", large)),
        ),
        Step(
            *("POST of a question", 1, together(partial(ask, http, f"{api}/responses", ANSWER))),
            together(partial(client.ask, "bare", ANSWER)),
        ),
    ]


class Scripts:
    """Ledger scripts of many jobs, and in their place HSET and XADD, all that come together in one round trip."""

    def __init__(self, ledger: Ledger, claims: list[Claim]) -> None:
        self._ledger = ledger
        self._claims = claims
        self._writes = count(1)

    @classmethod
    async def open(cls, settings: JobsSettings) -> "Scripts":
        ledger = Ledger.connect(settings)
        jobs = [new_job(deadline=DEADLINE) for _ in range(AT_ONCE)]
        for job in jobs:
            await ledger.submissions.create(job)
        claims = [await ledger.claims.claim(job.job_id) for job in jobs]
        return cls(ledger, [claim for claim in claims if claim is not None])

    async def floor(self, times: int) -> None:
        for _ in range(times // AT_ONCE):
            async with self._ledger.client.pipeline(transaction=False) as pipe:
                for claim in self._claims:
                    pipe.hset(f"floor:{claim.job_id}", mapping={"stage": "fetch", "progress": 10})
                    pipe.xadd("floor", {"job": claim.job_id, "event": "{}"}, maxlen=KEPT)
                await pipe.execute()

    async def ours(self, times: int) -> None:
        event = completed(Stage.FETCH)
        for _ in range(times // AT_ONCE):
            write = next(self._writes)
            await asyncio.gather(*(self._ledger.claims.record(claim, event, write=write) for claim in self._claims))

    async def close(self) -> None:
        await self._ledger.close()


class Messages:
    """To and from the broker: kombu by itself, and Bunri's queue with a worker of Celery that does nothing."""

    def __init__(self, server: RedisServer, worker_pid: int) -> None:
        self._settings = JobsSettings.model_validate({"redis_url": server.url})
        self._queue = JobQueue.connect(self._settings)
        self._connection = Connection(server.url, transport_options={"ack_emulation": False})
        self._place = Queue("floor.jobs")
        self._client = redis.Redis.from_url(server.url)
        self._worker_pid = worker_pid
        self._sent = 0

    async def publish(self, times: int) -> None:
        producer = Producer(self._connection)
        for _ in range(times):
            producer.publish([[new_job_id()], {}, {}], routing_key=self._place.name, declare=[self._place])

    async def consume(self, times: int) -> None:
        """What was published before."""
        seen: list[object] = []
        with Consumer(self._connection, [self._place], on_message=seen.append, no_ack=True):
            while len(seen) < times:
                self._connection.drain_events(timeout=5)

    async def enqueue(self, times: int) -> None:
        """The worker stands still meanwhile: it goes on in `work`."""
        os.kill(self._worker_pid, signal.SIGSTOP)
        self._sent += times
        await together(lambda: self._queue.enqueue(new_job_id()))(times)

    async def work(self, _times: int) -> None:
        os.kill(self._worker_pid, signal.SIGCONT)
        await eventually(self._all_done, within=60, every=0.1)

    async def _all_done(self) -> bool:
        return int(await self._client.get(DONE) or 0) >= self._sent

    async def close(self) -> None:
        os.kill(self._worker_pid, signal.SIGCONT)
        await self._queue.close()
        self._connection.release()
        await self._client.aclose()


@asynccontextmanager
async def noop_worker(server: RedisServer) -> AsyncIterator[int]:
    """Its pid, when it is ready."""
    command = worker_command(1, AT_ONCE)
    command[command.index("workers")] = "benchmarks.noop_worker"
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "REDIS_URL": server.url},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with redis.Redis.from_url(server.url) as client:

            async def is_ready() -> bool:
                return bool(await client.exists(DONE))

            await eventually(is_ready, within=60)
        yield process.pid
    finally:
        process.kill()
        await process.wait()


async def queue_steps(opened: AsyncExitStack) -> list[Step]:
    server = await opened.enter_async_context(redis_server())
    scripts = await Scripts.open(JobsSettings.model_validate({"redis_url": server.url}))
    opened.push_async_callback(scripts.close)
    at_redis = [server.process.pid]
    worker = await opened.enter_async_context(noop_worker(server))
    messages = Messages(server, worker)
    opened.push_async_callback(messages.close)
    return [
        Step("ledger script", SCRIPTS_A_JOB, scripts.floor, scripts.ours),
        Step(
            *("the same, in Redis", SCRIPTS_A_JOB, scripts.floor, scripts.ours),
            others=lambda: at_redis,
            is_elsewhere=True,
        ),
        Step("message, sent", 1, messages.publish, messages.enqueue),
        Step("message, received", 1, messages.consume, messages.work, others=lambda: family(worker)),
    ]


async def steps_of(folder: Path, times: int, rounds: int) -> list[Row]:
    photo = photo_file(folder, "1")
    async with model_server(photo, "--vision", "0", "0", "--answer", "0", "0") as model, AsyncExitStack() as opened:
        steps = [*await pipeline_steps(photo.read_bytes(), model[0], opened), *await queue_steps(opened)]
        found: dict[str, list[tuple[float, float]]] = {step.name: [] for step in steps}
        for _ in range(rounds + 1):  # The first one warms up.
            for step in steps:
                others = step.others() if step.is_elsewhere else ()
                floor = await cost(step.floor, times, others, elsewhere=step.is_elsewhere)
                ours = await cost(step.ours, times, step.others(), elsewhere=step.is_elsewhere)
                found[step.name].append((floor, ours))
    return [row_of(step, found[step.name][1:]) for step in steps]


def row_of(step: Step, found: list[tuple[float, float]]) -> dict[str, object]:
    floor, ours = (statistics.median(each) for each in zip(*found, strict=True))
    return {
        "CPU-ms": step.name,
        "floor": floor,
        "ours": ours,
        "ratio": ratio(ours, floor),
        "in a job": step.times,
        "floor, a job": floor * step.times,
        "ours, a job": ours * step.times,
    }


def summed(rows: list[Row], measured: Cost) -> list[Row]:
    """All steps of a job, and a job on a real stack, whose `floor` is the sum of floors."""
    floor = sum(cast("float", row["floor, a job"]) for row in rows)
    ours = sum(cast("float", row["ours, a job"]) for row in rows)
    empty: dict[str, object] = dict.fromkeys(rows[0])
    return [
        empty | {"CPU-ms": "all steps", "ratio": ratio(ours, floor), "floor, a job": floor, "ours, a job": ours},
        empty
        | {
            "CPU-ms": "a job, measured",
            "ratio": ratio(measured.ours, floor),
            "floor, a job": floor,
            "ours, a job": measured.ours,
        },
    ]


async def measure(options: argparse.Namespace) -> tuple[list[Row], Cost]:
    latency = ("--vision", "0.3", "0.3", "--answer", "0.3", "0.3")
    with tempfile.TemporaryDirectory() as folder:
        rows = await steps_of(Path(folder), options.times, options.rounds)
        whole = Options(options.users, 1, 0.3, options.warm_up, options.seconds, options.idle)
        async with model_server(photo_file(Path(folder), "1"), *latency) as model:
            measured = await cost_of(Path(folder) / "stack", model, whole, local=False)
    return [*rows, *summed(rows, measured)], measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=320, help=f"that a step is done in a round, of {AT_ONCE}s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=50, help="of the job that is measured whole")
    parser.add_argument("--warm-up", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--idle", type=float, default=10.0)
    options = parser.parse_args()
    options.times -= options.times % AT_ONCE
    report = Report("floor")
    rows, measured = uvloop.run(measure(options))
    by_role = "  ".join(f"{role} {measured.per_job[role]:.2f}" for role in OURS)
    report.print(
        rows,
        f"a job, measured: {by_role}; without the idle cost. What no step has: HTTP server, event streams, log, loop.",
        measured={role: round(measured.per_job[role], 3) for role in OURS},
    )


if __name__ == "__main__":
    main()
