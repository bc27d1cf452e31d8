"""One supervised process: its own session and log file, started again when it dies, gone when we are."""

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

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
STABLE_SECONDS = 30.0
"""A process that lived so long starts again at once; one that dies sooner waits twice as long each time."""

LOG_LINES = 15


class StartFailed(Exception):
    """A process did not come up. The message holds the end of its log."""


@dataclass(frozen=True)
class Command:
    """What to run. `env` is added to ours; `log` is appended to."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    log: Path


class Supervised:
    """Runs a command until `stop`. `on_restart` is told each time that it has died and will run again."""

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
        """From now on, start it again whenever it dies."""
        self._watch = asyncio.create_task(self._keep_alive(), name=f"watch-{self.command.name}")

    async def stop(self, *, within: float) -> None:
        """SIGTERM, and SIGKILL for one that does not heed it in so many seconds."""
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
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            assert self._process is not None  # noqa: S101 - started before it is watched
            code = await self._process.wait()
            pause = FIRST_PAUSE if time.monotonic() - began > STABLE_SECONDS else min(pause * 2, LONGEST_PAUSE)
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
                start_new_session=True,  # A Ctrl-C in the terminal is for us: we stop the others in order.
                preexec_fn=lambda: _die_with(parent),
            )

    def _signal(self, number: signal.Signals) -> None:
        """To the whole session, so that nothing the process started stays behind a SIGKILL."""
        assert self._process is not None  # noqa: S101 - only what runs is stopped
        with suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)


def _die_with(parent: int) -> None:
    """In the child, before exec: have the kernel end it when we die, even by SIGKILL."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
