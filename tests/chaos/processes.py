"""One process of the rig: started, killed, paused and looked at by its pid."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.support.bunri import ROOT


@dataclass(frozen=True)
class Footprint:
    """What a process and its children hold: open files, threads, resident memory."""

    files: int
    threads: int
    kilobytes: int


@dataclass(eq=False)
class Process:
    """`env` is its whole environment. Its log is appended to by each start."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = None
    killed_at: list[float] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    @property
    def is_alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def start(self, **more: str) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.argv, env=self.env | more, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, *, children: bool = True) -> None:
        """SIGKILL, at the same moment for its children."""
        victims = [self.pid, *(descendants(self.pid) if children else [])]
        self.killed_at.append(time.time())
        for pid in victims:
            send(pid, signal.SIGKILL)
        self._reap()

    def terminate(self) -> None:
        send(self.pid, signal.SIGTERM)

    def pause(self) -> None:
        send(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        send(self.pid, signal.SIGCONT)

    def stop(self, *, within: float = 20.0) -> int:
        """SIGTERM, and SIGKILL for one that does not heed it. Returns the exit status."""
        assert self.popen is not None
        if self.is_alive:
            self.resume()
            self.terminate()
            try:
                return self.popen.wait(within)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._reap()

    def decoders(self) -> list[int]:
        """Pids of its decode processes."""
        return [pid for pid in descendants(self.pid) if "pipeline.intake.image" in command_line(pid)]

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Lines of its log with one of these event names; all without. What is no JSON is left out."""
        found = []
        for line in self.log.read_bytes().splitlines():
            with suppress(orjson.JSONDecodeError):
                entry = orjson.loads(line)
                if isinstance(entry, dict) and (not names or entry.get("event") in names):
                    found.append(entry)
        return found

    def footprint(self) -> Footprint:
        """Zero of everything for a process that has gone."""
        total = Footprint(0, 0, 0)
        for pid in [self.pid, *descendants(self.pid)]:
            with suppress(OSError, KeyError):
                status = _status(pid)
                total = Footprint(
                    total.files + len(list(Path(f"/proc/{pid}/fd").iterdir())),
                    total.threads + int(status["Threads"]),
                    total.kilobytes + int(status["VmRSS"].split()[0]),
                )
        return total

    def _reap(self) -> int:
        assert self.popen is not None
        return self.popen.wait(10)


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """Children, and theirs."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return ""


def is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return _status(pid)["State"].startswith("Z")
    return False


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and not is_zombie(pid)


def _status(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
