"""One supervised process: in its own session, with its own log file; restarted when it dies, ended when we end."""

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

MIN_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 10.0
STABLE_SECONDS = 30.0
"""A process that lived longer is restarted after the shortest pause; else the pause doubles each time."""

LOG_LINES = 15


class StartFailed(Exception):
    """A process did not start. The message is for the user; it may hold the end of the log."""


@dataclass(frozen=True)
class Command:
    """The command of one process. `env` is added to our environment; output is appended to `log`."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    log: Path


class Supervised:
    """Runs a command until `stop`. `on_restart(name, exit_code)` is called each time before it is restarted."""

    def __init__(self, command: Command, on_restart: Callable[[str, int], None]) -> None:
        self.command = command
        self._on_restart = on_restart
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        self._process = await self._spawn()

    def keep_alive(self) -> None:
        """From now on, restart it whenever it dies."""
        self._watch = asyncio.create_task(self._keep_alive(), name=f"watch-{self.command.name}")

    async def stop(self, *, within: float) -> None:
        """SIGTERM, then SIGKILL after `within` seconds."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if not self.is_alive or self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def end_of_log(self) -> str:
        with suppress(OSError):
            return "\n".join(self.command.log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:])
        return ""

    async def _keep_alive(self) -> None:
        pause = MIN_PAUSE_SECONDS
        while True:
            started_at = time.monotonic()
            assert self._process is not None  # noqa: S101 - started before it is watched
            code = await self._process.wait()
            was_stable = time.monotonic() - started_at > STABLE_SECONDS
            pause = MIN_PAUSE_SECONDS if was_stable else min(pause * 2, MAX_PAUSE_SECONDS)
            self._on_restart(self.command.name, code)
            await asyncio.sleep(pause)
            self._process = await self._spawn()

    async def _spawn(self) -> asyncio.subprocess.Process:
        parent = os.getpid()
        with self.command.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.command.argv,
                env={**os.environ, **self.command.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal reaches only us: we stop the processes in order.
                preexec_fn=lambda: _die_with(parent),
            )

    def _signal(self, number: signal.Signals) -> None:
        """SIGKILL goes to the whole session, so that no child survives; other signals to the process alone."""
        assert self._process is not None  # noqa: S101 - only what runs is stopped
        with suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)


def _die_with(parent: int) -> None:
    """Runs in the child, before exec: the kernel sends it SIGTERM when we die, even by SIGKILL."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
