"""The `bunri` command as a person runs it, and a count of what it leaves behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx

from tests.support.plain_http import NO_CERTIFICATES
from tests.support.wait import wait_until

BUNRI = Path(sys.executable).with_name("bunri")
ROOT = Path(__file__).parent.parent.parent
START = 60.0


def run_bunri(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """To its end, in the project's folder. Asserts that nothing it started is left."""
    with TemporaryDirectory() as folder:
        run = Run(Path(folder))
        done = subprocess.run(
            [BUNRI, *arguments],
            env={**os.environ, **(env or {}), **run.env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert run.processes() == []
        return done


@dataclass(frozen=True)
class Run:
    """Tells the processes of one run from all others: by a variable they inherit, or by the folder they work in.

    The variable alone is not enough: redis-server writes its title over its environment.
    """

    folder: Path
    id: str = field(default_factory=lambda: uuid4().hex)

    @property
    def env(self) -> dict[str, str]:
        return {"BUNRI_TEST_RUN": self.id, "TMPDIR": str(self.folder)}

    def processes(self) -> list[tuple[int, str]]:
        """Pid and command line of each."""
        return [found for place in Path("/proc").glob("[0-9]*") if (found := self._look(place)) is not None]

    def _look(self, place: Path) -> tuple[int, str] | None:
        try:
            is_marked = f"BUNRI_TEST_RUN={self.id}".encode() in (place / "environ").read_bytes().split(b"\0")
            if not is_marked and not str((place / "cwd").readlink()).startswith(str(self.folder)):
                return None
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            return int(place.name), line
        except OSError:
            return None  # It has gone, or is another user's.


@dataclass
class RunningBunri:
    """`bunri up` in the foreground of a terminal that is us."""

    process: subprocess.Popen[str]
    data_dir: Path
    run: Run

    @property
    def printed(self) -> str:
        return (self.data_dir / "printed").read_text()

    def url_of(self, name: str) -> str:
        return next(line.split()[-1] for line in self.printed.splitlines() if line.startswith(name))

    @property
    def api(self) -> str:
        return self.url_of("metrics").removesuffix("/metrics")

    def pids(self, of: str = "") -> list[int]:
        """Of the processes it started whose command line contains `of`."""
        return [pid for pid, line in self.run.processes() if of in line and pid != self.process.pid]

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=30)

    def logs(self) -> str:
        return "\n".join(log.read_text("utf-8", "replace") for log in (self.data_dir / "logs").iterdir())


@contextmanager
def running_bunri(
    data_dir: Path, *arguments: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> Iterator[RunningBunri]:
    """`bunri up`, ready. Stopped in the end if the test has not done so. `prefix` is a command that runs it."""
    run = Run(data_dir)
    data_dir.mkdir(exist_ok=True)
    with (data_dir / "printed").open("w") as printed:
        process = subprocess.Popen(
            [*prefix, BUNRI, "up", "--data-dir", data_dir, "--workers", "1", *arguments],
            env={**os.environ, **(env or {}), **run.env},
            cwd=ROOT,
            stdout=printed,
            stderr=subprocess.STDOUT,
            text=True,
        )
    up = RunningBunri(process, data_dir, run)
    try:
        wait_until(lambda: "Ctrl-C" in up.printed or process.poll() is not None, within=START)
        assert process.poll() is None, up.printed
        yield up
    finally:
        if process.poll() is None:
            up.stop()


def is_up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, verify=NO_CERTIFICATES, timeout=5).is_success
    except httpx.TransportError:
        return False
