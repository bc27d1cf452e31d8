"""The rig: Redis, API and two workers of its own as real processes, what they call, and clients; one for each fault."""

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio as redis
from PIL import Image

from tests.chaos.clients import FINAL, Client, Mode, Submit, Watched
from tests.chaos.processes import Footprint, Process, command_line, descendants, exists, send
from tests.chaos.upstreams import LATENCY, Model, Origin, Receiver, serving
from tests.support.bunri import ROOT
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.redis_server import RedisServer, free_port, start_redis
from tests.support.relay import Relay, relay
from tests.support.wait import eventually, wait_until
from workers.command import worker_command

RATE = 10.0
"""Jobs a second."""

CONCURRENCY = 50
WARM_UP = 10_000
"""Number of the first of the jobs that run before the stream; they count for nothing."""

CROWD_CLIENTS = 20
PROBE_EVERY = 0.1
START_SECONDS = 90.0
DEADLINE = 120.0
"""A job's deadline, as is the default."""

MARGIN = 60.0
"""A job must have ended so long after its deadline."""

SECRETS = {
    "url": "CHAOS-SIGNATURE-",
    "key": "sk-chaos-secret",
    "hook": "whsec_dGhlIGNoYW9zIHN1aXRlIHNpZ25zIGl0cyBob29rcyE=",
}
"""Planted where they must never be logged: in links, as the model's key, as what signs webhooks."""


@dataclass(frozen=True)
class Disruption:
    """Something that the rig did. Unix seconds."""

    what: str
    began: float
    ended: float


@dataclass(frozen=True)
class Probe:
    """One GET /healthz; `seconds` None: no answer."""

    at: float
    seconds: float | None


@dataclass
class Options:
    """`wired`: each process reaches Redis over a relay. `env` is for API and workers, above the rig's own."""

    jobs: int
    seed: int = 1
    rate: float = RATE
    env: dict[str, str] = field(default_factory=dict)
    wired: bool = False


@dataclass(eq=False)
class Rig:
    """Everything of one run. A fault's act uses it to hold, kill, pause and cut, and says what it expects."""

    fault: str
    options: Options
    folder: Path
    redis: RedisServer
    origin: Origin
    model: Model
    receiver: Receiver
    http: httpx.AsyncClient
    """For the rig itself; the clients share `crowd`, because one pool of hundreds of connections takes all its time."""
    crowd: list[httpx.AsyncClient]
    stack: AsyncExitStack
    """What is entered here is left when the run is over."""
    api_port: int
    model_wire: Relay
    wires: dict[str, Relay] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    watched: list[Watched] = field(default_factory=list)
    expected: dict[int, set[str]] = field(default_factory=dict)
    expected_of_all: set[str] = field(default_factory=lambda: {"completed"})
    other_ids: set[str] = field(default_factory=set)
    """Jobs that were submitted beside the stream."""
    disruptions: list[Disruption] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    baseline: dict[str, Footprint] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    recovered: float | None = None
    window: tuple[float, float] = (0.0, 0.0)
    special: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What is different about some jobs' requests: `photo`, `headers`, and fields of the body."""
    pids: set[int] = field(default_factory=set)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _began: float = 0.0

    # --- what a fault's act uses ---

    @property
    def jobs(self) -> int:
        return self.options.jobs

    @property
    def middle(self) -> int:
        """A job about a third into the stream, at which most faults fire. The seed says which."""
        chance = random.Random(f"{self.options.seed} {self.fault}")
        return self.jobs // 3 + chance.randrange(1 + self.jobs // 10)

    @property
    def api(self) -> Process:
        return self.processes["api"]

    @property
    def workers(self) -> list[Process]:
        return [process for name, process in self.processes.items() if name.startswith("worker")]

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def last_at(self) -> float:
        """Seconds from the stream's begin to its last job."""
        return self.jobs / self.options.rate

    def expect(self, job: int, *codes: str) -> None:
        """The job may end so; `completed` is what every other must come to."""
        self.expected[job] = set(codes)

    def allowed(self, job: int) -> set[str]:
        return self.expected.get(job, self.expected_of_all)

    def demand(self, holds: object, what: str) -> None:
        """A bar of this fault's own: it is broken unless `holds`."""
        if not holds:
            self.breaches.append(what)

    def demand_within(self, limit: float, seconds: float, what: str) -> None:
        """A bar on time. It is kept apart, because a machine with other work to do may break it."""
        if seconds > limit:
            self.late.append(f"{what}: {seconds:.2f} s, not {limit:g}")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def disrupted(self, what: str, began: float, ended: float | None = None) -> None:
        self.disruptions.append(Disruption(what, began, ended or time.time()))

    async def accepted(self, job: int) -> str:
        """The job's id, as soon as it has one."""
        await eventually(
            lambda: _true(any(each.number == job and each.is_accepted for each in self.watched)), within=120
        )
        return self.job(job).job_id

    @property
    def has_killed_a_worker(self) -> bool:
        return any(worker.killed_at for worker in self.workers)

    async def has_ended(self, job: int) -> bool:
        answer = await self.http.get(f"/api/v1/scan/{self.job(job).job_id}")
        return answer.is_success and answer.json()["status"] in FINAL

    async def is_told(self, job: int) -> bool:
        """Whether its client has learnt of its end, too."""
        return self.job(job).ended_at is not None

    async def have_all_ended(self) -> bool:
        return all(each.ended_at or each.gone for each in self.watched)

    async def knows(self, job_id: str) -> bool:
        return any(job_id in each.job_ids for each in self.watched)

    def number_of(self, job_id: str) -> int:
        return next(each.number for each in self.watched if job_id in each.job_ids)

    def first_of(self, mode: Mode, start: int) -> int:
        """The first job from `start` on whose client follows it so."""
        return next(number for number in range(start, self.jobs) if mode_of(number) is mode)

    def job(self, number: int) -> Watched:
        return next(each for each in self.watched if each.number == number)

    async def worker_of(self, job: int) -> Process:
        """The worker that has claimed the job, as the newest line in the workers' logs says."""
        job_id = await self.accepted(job)
        found: list[tuple[str, Process]] = []

        async def is_claimed() -> bool:
            found[:] = [(each["timestamp"], worker) for worker in self.workers for each in claims(worker, job_id)]
            return bool(found)

        await eventually(is_claimed, every=0.2)
        return max(found, key=lambda each: each[0])[1]

    async def claimed_again(self, job: int, *, after: float, within: float = 60.0) -> float:
        """Seconds from `after` until a worker claims the job."""
        job_id = await self.accepted(job)
        times: list[float] = []

        async def is_claimed() -> bool:
            times[:] = [at for worker in self.workers for at in claim_times(worker, job_id) if at > after]
            return bool(times)

        await eventually(is_claimed, within=within, every=0.2)
        return min(times) - after

    async def kill_worker(self, worker: Process, *, restart: bool = True) -> float:
        """SIGKILL, its decode processes with it; a supervisor starts another. Returns when, Unix seconds."""
        self._remember_pids()
        at = time.time()
        worker.kill()
        if wire := self.wires.get(worker.name):
            wire.reset()
        self.disrupted(f"kill {worker.name}", at)
        if restart:
            worker.start()
        return at

    async def kill_api(self) -> float:
        self._remember_pids()
        at = time.time()
        self.api.kill()
        return at

    async def start_api(self, since: float) -> float:
        """Start it again; returns when it answered. Its absence counts from `since`."""
        self.api.start()
        await eventually(self.is_up, within=START_SECONDS)
        self.disrupted("no api", since)
        return time.time()

    async def kill_redis(self, *, down: float) -> float:
        """SIGKILL, and back after `down` seconds with its append-only file. Returns when it answered again."""
        at = time.time()
        self.redis.kill()
        await asyncio.sleep(down)
        await asyncio.to_thread(self.redis.restart)
        self.disrupted("kill redis", at)
        return time.time()

    async def pause_redis(self, seconds: float) -> float:
        at = time.time()
        self.redis.pause()
        await asyncio.sleep(seconds)
        self.redis.resume()
        self.disrupted("pause redis", at)
        return time.time()

    async def first_end_after(self, at: float, *, within: float = 60.0) -> float:
        """Seconds from `at` until a job that was claimed after it has ended: consumption goes on."""
        found: list[float] = []

        async def has_ended() -> bool:
            found[:] = [end for worker in self.workers for end in _whole_jobs(worker, at)]
            return bool(found)

        await eventually(has_ended, within=within, every=0.1)
        return min(found) - at

    def submits_between(self, began: float, ended: float) -> list[Submit]:
        return [each for job in self.watched for each in job.submits if began <= each.at <= ended]

    # --- what the run uses ---

    async def warm_up(self) -> None:
        """A few jobs through both workers, and then the look at what the processes hold."""
        jobs = [Watched(WARM_UP + number, Mode.POLL) for number in range(8)]
        await asyncio.gather(*(self._client(job).run(job) for job in jobs))
        await asyncio.sleep(0.5)
        self.baseline = {name: process.footprint() for name, process in self.processes.items()}
        self.other_ids |= {job.job_id for job in jobs}
        self.model.calls.clear()
        self.origin.calls.clear()

    def start_stream(self, **overrides: Any) -> None:
        """One client for each job, evenly spread; half of them follow the stream of events."""
        self._began = time.time()
        self.probes.clear()
        self._tasks.append(asyncio.create_task(self._probe()))
        self.watched = [Watched(number, mode_of(number)) for number in range(self.jobs)]
        for job in self.watched:
            self._tasks.append(asyncio.create_task(self._arrive(job, **overrides)))

    async def run_client(self, job: Watched) -> None:
        """One more client beside the stream; `job` is in `watched`, so that the oracle looks at it, too."""
        await self._client(job).run(job)

    async def _arrive(self, job: Watched, **overrides: Any) -> None:
        await asyncio.sleep(job.number / self.options.rate)
        await self._client(job).run(job, **(self.special.get(job.number, {}) | overrides))

    def _client(self, job: Watched) -> Client:
        return Client(
            self.crowd[job.number % len(self.crowd)],
            photos=self.origin.url(""),
            hooks=self.receiver.url(""),
            secret=SECRETS["url"],
            receiver=self.receiver,
            fault=self.fault,
        )

    async def drain(self) -> None:
        """Until every client knows how its job ended, or the time is over that the promise leaves."""
        clients = self._tasks[1:]
        within = self._began + self.last_at + DEADLINE + MARGIN - time.time()
        await asyncio.wait(clients, timeout=max(within, 1.0))
        for task in self._tasks:
            task.cancel()
        for end in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(end, Exception):
                raise end
        self.window = (self._began, time.time())

    async def look_back(self) -> None:
        for job in self.watched:
            if job.is_accepted:
                await self._client(job).look_back(job)

    async def ready(self) -> httpx.Response | None:
        with suppress(httpx.TransportError):
            return await self.http.get("/readyz", timeout=10)
        return None

    async def until_ready(self) -> None:
        """All processes up, and both workers alive. Raises AssertionError with the ends of their logs."""
        try:
            await eventually(lambda: self.has_workers(2), within=START_SECONDS, every=0.2)
        except AssertionError as error:
            logs = [process.log.read_text()[-600:] for process in self.processes.values()]
            raise AssertionError("not ready; the logs end so:\n" + "\n".join(logs)) from error

    async def has_workers(self, count: int) -> bool:
        """Ready, and so many live worker processes of this rig."""
        with suppress(httpx.TransportError):
            answer = await self.ready()
            if answer is None or answer.is_error:
                return False
            live = (await self.http.get("/api/v1/pipeline")).json()["workers"] or []
            pids = {int(beat["worker"].rpartition(":")[2]) for beat in live}
            return len(pids & {worker.pid for worker in self.workers}) >= count
        return False

    def _remember_pids(self) -> None:
        for process in self.processes.values():
            if process.popen is not None:
                self.pids |= {process.pid, *descendants(process.pid)}

    async def is_up(self) -> bool:
        with suppress(httpx.TransportError):
            return (await self.http.get("/healthz", timeout=5)).is_success
        return False

    async def _probe(self) -> None:
        while True:
            began, at = time.monotonic(), time.time()
            seconds = None
            with suppress(httpx.TransportError):
                await self.http.get("/healthz", timeout=5)
                seconds = time.monotonic() - began
            self.probes.append(Probe(at, seconds))
            self._remember_pids()
            await asyncio.sleep(PROBE_EVERY)

    def stop(self) -> dict[str, int]:
        """All processes, in order. Returns exit statuses, and takes care that nothing stays."""
        self._remember_pids()
        return {name: process.stop() for name, process in self.processes.items() if process.popen}

    def leftovers(self) -> list[str]:
        """Command lines of processes of this rig that live on. They are ended."""
        with suppress(AssertionError):  # A decode process sees its worker's end a moment later.
            wait_until(lambda: not any(map(exists, self.pids)), within=5)
        alive = [pid for pid in self.pids if exists(pid)]
        lines = [command_line(pid) for pid in alive]
        for pid in alive:
            send(pid, signal.SIGKILL)
        return lines


@asynccontextmanager
async def rig(fault: str, options: Options, *, start: bool = True) -> AsyncIterator[Rig]:
    """Everything up and warm, or with `start` False everything but the processes."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bunri-chaos-")))
        for name in ("redis", "tmp", "logs", "uploads"):
            (folder / name).mkdir()
        origin, model, receiver = Origin(0, photo=_photo()), Model(0, latency=LATENCY, seed=options.seed), Receiver(0)
        for upstream in (origin, model, receiver):
            await stack.enter_async_context(serving(upstream))
        server = await asyncio.to_thread(start_redis, folder / "redis")
        stack.callback(server.stop)
        port = free_port()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        url = f"http://127.0.0.1:{port}"
        http, *crowd = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, trust_env=False, verify=NO_CERTIFICATES, timeout=15, limits=limits)
            )
            for _ in range(1 + CROWD_CLIENTS)
        ]
        wire = await stack.enter_async_context(relay(model.port))
        it = Rig(fault, options, folder, server, origin, model, receiver, http, crowd, stack, port, wire)
        for name in ("api", "worker-1", "worker-2"):
            url = server.url
            if options.wired:
                it.wires[name] = await stack.enter_async_context(relay(server.port))
                url = f"redis://127.0.0.1:{it.wires[name].port}/0"
            it.processes[name] = _process(it, name, url)
        stack.callback(it.leftovers)
        stack.callback(it.stop)
        if start:
            for process in it.processes.values():
                process.start()
            await it.until_ready()
            await it.warm_up()
        yield it


def mode_of(number: int) -> Mode:
    """Half of the clients follow the stream of events."""
    others = (Mode.LONG_POLL, Mode.POLL, Mode.WEBHOOK, Mode.LONG_POLL)
    return Mode.STREAM if number % 2 == 0 else others[number // 2 % len(others)]


def claims(worker: Process, job_id: str) -> Iterable[dict[str, Any]]:
    return (each for each in worker.events("job.claimed") if each["job_id"] == job_id)


def claim_times(worker: Process, job_id: str) -> list[float]:
    return [unix(each["timestamp"]) for each in claims(worker, job_id)]


def unix(timestamp: str) -> float:
    """Of a log line."""
    return datetime.fromisoformat(timestamp).timestamp()


def client_at(rig_: Rig, address: str) -> httpx.AsyncClient:
    """A client that comes from another address of the loopback network, and so is another caller."""
    transport = httpx.AsyncHTTPTransport(local_address=address, verify=NO_CERTIFICATES)
    return httpx.AsyncClient(base_url=rig_.api_url, trust_env=False, timeout=15, transport=transport)


def redis_client(rig_: Rig) -> "redis.Redis":
    return redis.Redis.from_url(rig_.redis.url, socket_timeout=10)


def _whole_jobs(worker: Process, after: float) -> list[float]:
    """When jobs ended that were claimed after this moment."""
    claimed = {each["job_id"] for each in worker.events("job.claimed") if unix(each["timestamp"]) > after}
    ends = worker.events("job.completed", "job.failed")
    return [unix(each["timestamp"]) for each in ends if each.get("job_id") in claimed]


def _process(it: Rig, name: str, redis_url: str) -> Process:
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(it.folder),
        "TMPDIR": str(it.folder / "tmp"),
        "REDIS_URL": redis_url,
        "OPENAI_API_KEY": SECRETS["key"],
        "OPENAI_BASE_URL": f"http://127.0.0.1:{it.model_wire.port}/v1",
        "FETCH_ALLOW": "127.0.0.1",
        "RESULT_CACHE_TTL": "0",
        "WORKERS_WEBHOOK_SECRETS": SECRETS["hook"],
        "PIPELINE_UPLOAD_DIR": str(it.folder / "uploads"),
        "API_PORT": str(it.api_port),
        **it.options.env,
    }
    index = name.rpartition("-")[2]
    argv = [sys.executable, "-m", "api"] if name == "api" else worker_command(int(index), CONCURRENCY)
    return Process(name, argv, env, it.folder / "logs" / f"{name}.log")


def _photo() -> bytes:
    out = BytesIO()
    Image.open(ROOT / "samples" / "glass-1.jpg").resize((160, 120)).save(out, "JPEG")
    return out.getvalue()


async def _true(holds: bool) -> bool:  # noqa: FBT001
    return holds


async def wait_for(condition: asyncio.Event, *, within: float = 60.0) -> None:
    """An event of a hold or trap."""
    async with asyncio.timeout(within):
        await condition.wait()
