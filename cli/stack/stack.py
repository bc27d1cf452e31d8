"""The whole system on one machine: Redis unless REDIS_URL is set, workers, the API, Flower; each a real process."""

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
POLL_SECONDS = 0.1
STOP_MARGIN_SECONDS = 2.5
"""Added to the time in which a worker drains its jobs, 5 s by default. Redis stops after it: 10 s in all."""

STOP_REDIS_SECONDS = 2.0


@dataclass(frozen=True)
class StackOptions:
    """`port` None: the first free one from 8000 on. `env` is added to the environment of each process.

    `is_private`: ignore REDIS_URL, BROKER_URL and S3_BUCKET and start an own Redis, so that no other jobs are seen.
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
    """A running stack. `redis` and `webhook_secret` are descriptions for people, without the secrets."""

    api_url: str
    flower_url: str | None
    redis: str
    webhook_secret: str
    processes: tuple[Supervised, ...]


def ignore(_line: str) -> None:
    """Drops notices, for callers whose output is for machines."""


@asynccontextmanager
async def running_stack(options: StackOptions, *, notify: Callable[[str], None] = ignore) -> AsyncIterator[Stack]:
    """Start everything and wait until it is ready; stop everything at exit, also after a failed start.

    `notify` gets a line for each process that is restarted. Raises PortTaken or StartFailed.
    """
    builder = _Builder(options, notify)
    try:
        yield await builder.start()
    finally:
        await builder.stop()


class _Builder:
    def __init__(self, options: StackOptions, notify: Callable[[str], None]) -> None:
        self._options = options
        self._notify = notify
        self._started: list[Supervised] = []
        self._ports: list[Reservation] = []
        self._logs = options.data_dir / "logs"
        self._lock: IO[bytes] | None = None

    async def start(self) -> Stack:
        options = self._options
        self._prepare_data_dir()
        api_port = self._keep(reserve_from(API_PORT) if options.port is None else reserve(options.port))
        env = options.env | self._storage_env()
        signing_env, signing = self._signing()
        redis_env, broker, redis = await self._redis()
        env |= signing_env | redis_env
        for index in range(1, options.workers + 1):
            await self._start(f"worker-{index}", worker_command(index, options.concurrency), env)
        api_env = {"API_HOST": "127.0.0.1", "API_PORT": str(api_port)}
        await self._start("api", [sys.executable, "-m", "api"], env | api_env)
        flower_url = await self._start_flower(broker) if options.with_flower else None
        api_url = f"http://127.0.0.1:{api_port}"
        await self._wait_until_ready(api_url, flower_url)
        for process in self._started:
            process.keep_alive()
        return Stack(api_url, flower_url, redis, signing, tuple(self._started))

    async def stop(self) -> None:
        """All at once but Redis, which is stopped last: the others use it until their end."""
        redis = [process for process in self._started if process.command.name == "redis"]
        others = [process for process in self._started if process not in redis]
        await asyncio.gather(*(process.stop(within=JobsSettings().drain + STOP_MARGIN_SECONDS) for process in others))
        await asyncio.gather(*(process.stop(within=STOP_REDIS_SECONDS) for process in redis))
        for reservation in self._ports:
            reservation.release()
        if self._lock is not None:
            self._lock.close()

    def _prepare_data_dir(self) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._options.data_dir.chmod(0o700)  # Links, photos and answers are not for other users of this machine.
        self._lock = lock(self._options.data_dir)

    def _storage_env(self) -> dict[str, str]:
        env = {}
        if self._options.is_private or "upload_dir" not in PipelineSettings().model_fields_set:
            env["PIPELINE_UPLOAD_DIR"] = str((self._options.data_dir / "uploads").resolve())
        if self._options.is_private:
            env["S3_BUCKET"] = ""
        return env

    def _signing(self) -> tuple[dict[str, str], str]:
        """Environment with the secret of webhooks, unless it is set; and its description for people."""
        if JobsSettings().webhook_keys:
            return {}, "signed as WORKERS_WEBHOOK_SECRETS says"
        secret, file = webhook_secret(self._options.data_dir)
        return {"WORKERS_WEBHOOK_SECRETS": secret}, f"signed with the secret in {file}"

    async def _redis(self) -> tuple[dict[str, str], str, str]:
        """Environment with the URLs of an own Redis, unless REDIS_URL is set; the broker's URL; a description."""
        settings, is_private = JobsSettings(), self._options.is_private
        if not is_private and "redis_url" in settings.model_fields_set:
            return {}, settings.broker, "as REDIS_URL says"
        url, description = await self._start_redis()
        if not is_private and settings.broker_url:
            return {"REDIS_URL": url}, settings.broker, description
        return {"REDIS_URL": url, "BROKER_URL": url}, url, description

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
        self._notify(f"{name} ended with {code} and is started again; its log: {self._logs / f'{name}.log'}")

    async def _wait_until_ready(self, api_url: str, flower_url: str | None) -> None:
        pids = {process.pid for process in self._started if process.command.name.startswith("worker-")}
        # One client for all polls: each new one reads the machine's certificates, which takes 30 ms of CPU.
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            await self._until(lambda: _is_ready(http, api_url, flower_url, pids), "the stack")

    async def _until(self, is_ready: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await is_ready():
                    if dead := [process for process in self._started if not process.is_alive]:
                        raise StartFailed(f"{dead[0].command.name} ended while starting:\n{dead[0].end_of_log()}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise StartFailed(f"{what}: not ready after {READY_SECONDS:g} s; logs are in {self._logs}") from error


def lock(data_dir: Path) -> IO[bytes]:
    """Lock the directory against other stacks: two Redis servers would ruin one file. Raises StartFailed."""
    file = (data_dir / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StartFailed(f"another `bunri up` uses {data_dir}: stop it, or give --data-dir") from error
    return file


async def _is_ready(http: httpx.AsyncClient, api_url: str, flower_url: str | None, workers: set[int | None]) -> bool:
    """Whether /readyz is green, the workers with these pids live, and Flower answers."""
    try:
        if (await http.get(f"{api_url}/readyz")).is_error:
            return False
        live = (await http.get(f"{api_url}/api/v1/pipeline")).json()["workers"] or []
        if flower_url is not None and (await http.get(f"{flower_url}/healthcheck")).is_error:
            return False
    except httpx.TransportError:
        return False
    return workers <= {int(beat["worker"].rpartition(":")[2]) for beat in live}
