"""The whole system on one machine: Redis if nobody names one, workers, the API, Flower; each a real process."""

import asyncio
import fcntl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from cli.stack import redis as embedded
from cli.stack.ports import Reservation, reserve, reserve_from
from cli.stack.processes import Command, StartFailed, Supervised
from cli.stack.secret import webhook_secret
from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings
from workers.command import worker_command

API_PORT = 8000
FLOWER_PORT = 5555
READY_SECONDS = 60.0
POLL = 0.1
STOP_MARGIN = 2.5
"""Above the time that a worker gives its jobs, 5 s by default; with Redis after it, all is stopped within 10 s."""

STOP_REDIS_SECONDS = 2.0


@dataclass(frozen=True)
class StackOptions:
    """`port` None: the first free one from 8000 on. `env` is added to the environment of each process.

    `is_private`: with a Redis of its own whatever REDIS_URL says, so that it meets nobody else's jobs.
    """

    data_dir: Path
    workers: int = 1
    concurrency: int = 100
    port: int | None = None
    with_flower: bool = True
    env: dict[str, str] = field(default_factory=dict)
    is_private: bool = False


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    api_url: str
    flower_url: str | None
    redis: str
    webhook_secret: str
    processes: tuple[Supervised, ...]


def say_nothing(_line: str) -> None:
    """For callers whose output is for machines."""


@asynccontextmanager
async def running_stack(options: StackOptions, *, say: Callable[[str], None] = say_nothing) -> AsyncIterator[Stack]:
    """Start everything, wait until it is ready, and stop everything in the end, whatever happens in between.

    Raises PortTaken or StartFailed.
    """
    builder = _Builder(options, say)
    try:
        yield await builder.start()
    finally:
        await builder.stop()


class _Builder:
    def __init__(self, options: StackOptions, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._started: list[Supervised] = []
        self._ports: list[Reservation] = []
        self._logs = options.data_dir / "logs"
        self._lock: IO[bytes] | None = None

    async def start(self) -> Stack:
        options = self._options
        self._logs.mkdir(parents=True, exist_ok=True)
        options.data_dir.chmod(0o700)  # Links, photos and answers are not for other users of this machine.
        self._lock = lock(options.data_dir)
        api_port = self._keep(reserve_from(API_PORT) if options.port is None else reserve(options.port))
        env = dict(options.env)
        if options.is_private or "upload_dir" not in PipelineSettings().model_fields_set:
            env["PIPELINE_UPLOAD_DIR"] = str((options.data_dir / "uploads").resolve())
        if options.is_private:
            env["S3_BUCKET"] = ""
        settings = JobsSettings()
        signing = "signed as WORKERS_WEBHOOK_SECRETS says"
        if not settings.webhook_keys:
            env["WORKERS_WEBHOOK_SECRETS"], file = webhook_secret(options.data_dir)
            signing = f"signed with the secret in {file}"
        broker, place = settings.broker, "as REDIS_URL says"
        if options.is_private or "redis_url" not in settings.model_fields_set:
            env["REDIS_URL"], place = await self._start_redis()
            if options.is_private or not settings.broker_url:
                env["BROKER_URL"] = broker = env["REDIS_URL"]
        for index in range(1, options.workers + 1):
            await self._start(f"worker-{index}", worker_command(index, options.concurrency), env)
        api_env = {"API_HOST": "127.0.0.1", "API_PORT": str(api_port)}
        await self._start("api", [sys.executable, "-m", "api"], env | api_env)
        api_url = f"http://127.0.0.1:{api_port}"
        flower_url = None
        if options.with_flower:
            flower_url = await self._start_flower(broker)
        pids = {process.pid for process in self._started if process.command.name.startswith("worker-")}
        # One client for all looks: each new one reads the machine's certificates, which takes 30 ms of CPU.
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            await self._until(lambda: _is_ready(http, api_url, flower_url, pids), "the stack")
        for process in self._started:
            process.keep_alive()
        return Stack(api_url, flower_url, place, signing, tuple(self._started))

    async def stop(self) -> None:
        """Those who use Redis first, all at once; Redis last."""
        redis = [process for process in self._started if process.command.name == "redis"]
        others = [process for process in self._started if process not in redis]
        await asyncio.gather(*(process.stop(within=JobsSettings().drain + STOP_MARGIN) for process in others))
        await asyncio.gather(*(process.stop(within=STOP_REDIS_SECONDS) for process in redis))
        for reservation in self._ports:
            reservation.release()
        if self._lock is not None:
            self._lock.close()

    async def _start_redis(self) -> tuple[str, str]:
        port = self._keep(reserve_from(embedded.FIRST_PORT))
        command, url = embedded.redis_command(self._options.data_dir, port, self._logs / "redis.log")
        await self._supervise(command)
        await self._until(lambda: asyncio.to_thread(embedded.answers, url), "redis")
        return url, f"127.0.0.1:{port}, data in {self._options.data_dir / 'redis'}"

    async def _start_flower(self, broker: str) -> str:
        port = self._keep(reserve_from(FLOWER_PORT))
        celery = str(Path(sys.executable).with_name("celery"))
        argv = [celery, "flower", "--address=127.0.0.1", f"--port={port}", "--read_only=True", "--max_tasks=2000"]
        # The URL may hold a password, so it is not on the command line.
        await self._start("flower", argv, {"CELERY_BROKER_URL": broker})
        return f"http://127.0.0.1:{port}"

    def _keep(self, reservation: Reservation) -> int:
        self._ports.append(reservation)
        return reservation.port

    async def _start(self, name: str, argv: list[str], env: dict[str, str]) -> None:
        await self._supervise(Command(name, argv, env, self._logs / f"{name}.log"))

    async def _supervise(self, command: Command) -> None:
        process = Supervised(command, on_restart=self._note_restart)
        self._started.append(process)
        await process.start()

    def _note_restart(self, name: str, code: int) -> None:
        self._say(f"{name} ended with {code} and is started again; its log: {self._logs / f'{name}.log'}")

    async def _until(self, is_ready: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await is_ready():
                    if dead := [process for process in self._started if not process.is_alive]:
                        raise StartFailed(f"{dead[0].command.name} ended while starting:\n{dead[0].end_of_log()}")
                    await asyncio.sleep(POLL)
        except TimeoutError as error:
            raise StartFailed(f"{what}: not ready after {READY_SECONDS:g} s; logs are in {self._logs}") from error


def lock(data_dir: Path) -> IO[bytes]:
    """Keep other stacks out of this directory: two Redis servers would ruin one file. Raises StartFailed."""
    file = (data_dir / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StartFailed(f"another `bunri up` uses {data_dir}: stop it, or give --data-dir") from error
    return file


async def _is_ready(http: httpx.AsyncClient, api_url: str, flower_url: str | None, workers: set[int | None]) -> bool:
    """Redis, broker and the workers with these pids, all of one pipeline version; and Flower."""
    try:
        if (await http.get(f"{api_url}/readyz")).is_error:
            return False
        live = (await http.get(f"{api_url}/api/v1/pipeline")).json()["workers"] or []
        if flower_url is not None and (await http.get(f"{flower_url}/healthcheck")).is_error:
            return False
    except httpx.TransportError:
        return False
    return workers <= {int(beat["worker"].rpartition(":")[2]) for beat in live}
