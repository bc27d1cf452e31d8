"""The `bunri` command as a person runs it, and a count of what it leaves behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx

from tests.support.wait import wait_until

BUNRI = Path(sys.executable).with_name("bunri")
ROOT = Path(__file__).parent.parent.parent
START = 60.0


def run_bunri(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """To its end, in the project's folder. Asserts that nothing it started is left."""
    marker = _marker()
    done = subprocess.run(
        [BUNRI, *arguments],
        env={**os.environ, **(env or {}), **marker},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert processes_of(marker) == []
    return done


@dataclass
class RunningBunri:
    """`bunri up` in the foreground of a terminal that is us."""

    process: subprocess.Popen[str]
    data_dir: Path
    marker: dict[str, str]

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
        return [pid for pid, line in processes_of(self.marker) if of in line and pid != self.process.pid]

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
    marker = _marker()
    data_dir.mkdir(exist_ok=True)
    with (data_dir / "printed").open("w") as printed:
        process = subprocess.Popen(
            [*prefix, BUNRI, "up", "--data-dir", data_dir, "--workers", "1", *arguments],
            env={**os.environ, **(env or {}), **marker},
            cwd=ROOT,
            stdout=printed,
            stderr=subprocess.STDOUT,
            text=True,
        )
    up = RunningBunri(process, data_dir, marker)
    try:
        wait_until(lambda: "Ctrl-C" in up.printed or process.poll() is not None, within=START)
        assert process.poll() is None, up.printed
        yield up
    finally:
        if process.poll() is None:
            up.stop()


def is_up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


def processes_of(marker: dict[str, str]) -> list[tuple[int, str]]:
    """Every process that inherited the marker: pid and command line."""
    [(name, value)] = marker.items()
    wanted = f"{name}={value}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                found.append((int(folder.name), line))
        except OSError:
            continue
    return found


def _marker() -> dict[str, str]:
    return {"BUNRI_TEST_RUN": uuid4().hex}
