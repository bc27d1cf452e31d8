"""`bunri up`: real processes that are started, watched, killed and stopped."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.stack.ports import PortTaken, reserve
from tests.support.bunri import RunningBunri, is_up, run_bunri, running_bunri
from tests.support.image_server import ImageServer, image_server, reply, silence
from tests.support.wait import wait_until

SECRET = "TOPSECRET"
ALLOW = {"FETCH_ALLOW": "127.0.0.1"}


@pytest.fixture
def origin() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def submit(up: RunningBunri, url: str) -> str:
    answer = httpx.post(f"{up.api}/api/v1/scan", json={"image_url": url}, trust_env=False)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


def job_of(up: RunningBunri, job_id: str, *, wait: int = 0) -> dict[str, Any]:
    url = f"{up.api}/api/v1/scan/{job_id}?wait={wait}"
    job: dict[str, Any] = httpx.get(url, trust_env=False, timeout=wait + 10).json()
    return job


@contextmanager
def listening(*ports: int) -> Iterator[set[int]]:
    """Somebody else's servers on these ports. Left out: those that are taken by yet others, and those that a stack of
    another test has chosen and does not listen on yet.
    """
    bound = set()
    with ExitStack() as stack:
        for port in ports:
            try:
                reservation = reserve(port)
            except PortTaken:
                continue
            other = stack.enter_context(socket.socket())
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            reservation.release()
            bound.add(port)
        yield bound


def test_every_url_it_prints_answers_and_ctrl_c_stops_everything(tmp_path: Path) -> None:
    with listening(8000, 6390, 5555) as others, running_bunri(tmp_path / "data") as up:
        urls = [up.url_of(name) for name in ("playground", "API", "metrics", "Flower")]
        assert not others & {httpx.URL(url).port for url in urls}
        assert all(is_up(url) for url in urls)
        assert len(up.pids("worker")) == 1
        assert len(up.pids("redis-server")) == 1
        assert up.stop() == 0
        assert up.run.processes() == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_it_stops_in_order_when_its_terminal_or_a_supervisor_says_so(tmp_path: Path, how: signal.Signals) -> None:
    with running_bunri(tmp_path / "data") as up:
        assert up.stop(how) == 0
        assert up.run.processes() == []


def test_it_stops_on_sigint_even_in_the_background_of_a_script(tmp_path: Path) -> None:
    """Where the shell has set SIGINT to be ignored."""
    with running_bunri(tmp_path / "data", prefix=("/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh")) as up:
        assert up.stop(signal.SIGINT) == 0
        assert up.run.processes() == []


def test_ctrl_c_does_not_wait_for_a_job_that_hangs(tmp_path: Path, origin: ImageServer) -> None:
    with running_bunri(tmp_path / "data", env=ALLOW) as up:
        submit(up, origin.on("/slow.jpg", silence()))
        wait_until(lambda: len(origin.requests) == 1)
        up.process.send_signal(signal.SIGINT)
        up.process.wait(timeout=10)  # The promise of `make up`.
        assert up.run.processes() == []


def test_a_port_that_was_asked_for_and_is_taken_is_an_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run_bunri("up", "--port", str(port))
    assert done.returncode == 2
    assert str(port) in done.stderr


def test_two_stacks_never_share_a_data_directory(tmp_path: Path) -> None:
    with running_bunri(tmp_path / "data") as up:
        done = run_bunri("up", "--data-dir", str(tmp_path / "data"))
        assert done.returncode == 2
        assert is_up(f"{up.api}/readyz")


def test_a_demo_meets_no_job_of_a_stack_that_redis_url_names(tmp_path: Path) -> None:
    """Each on a Redis of its own, whatever the environment says."""
    with running_bunri(tmp_path / "data") as up:
        config = (tmp_path / "data/redis/redis.conf").read_text()
        settings = dict(line.split(" ", 1) for line in config.splitlines())
        theirs = f"redis://:{settings['requirepass']}@127.0.0.1:{settings['port']}/0"
        done = run_bunri("scan", "--json", "samples/glass-1.jpg", env={"REDIS_URL": theirs, "BROKER_URL": theirs})
        assert done.returncode == 0, done.stderr
        metrics = httpx.get(f"{up.api}/metrics", trust_env=False).text
        assert 'bunri_jobs_finished_total{code="",status="completed"}' not in metrics


def test_a_restart_loses_no_job(tmp_path: Path, origin: ImageServer, samples: Path) -> None:
    """One job was running, its worker stopped and with it Redis; it goes on after the next start."""
    url = origin.on("/glass.jpg", silence()) + f"?signature={SECRET}"
    with running_bunri(tmp_path / "data", env=ALLOW) as up:
        job_id = submit(up, url)
        wait_until(lambda: len(origin.requests) == 1)
    origin.on("/glass.jpg", reply(200, (samples / "glass-1.jpg").read_bytes()))
    with running_bunri(tmp_path / "data", env=ALLOW) as up:
        job = job_of(up, job_id, wait=30)
    assert (job["status"], job["attempts"]) == ("completed", 2)


def test_nothing_survives_the_supervisor_and_no_job_is_lost(tmp_path: Path, origin: ImageServer, samples: Path) -> None:
    url = origin.on("/glass.jpg", silence())
    with running_bunri(tmp_path / "data", env=ALLOW) as up:
        job_id = submit(up, url)
        wait_until(lambda: len(origin.requests) == 1)
        up.process.kill()
        up.process.wait()
        wait_until(lambda: up.run.processes() == [], within=15)
    origin.on("/glass.jpg", reply(200, (samples / "glass-1.jpg").read_bytes()))
    with running_bunri(tmp_path / "data", env=ALLOW) as up:
        assert job_of(up, job_id, wait=40)["status"] == "completed"


def test_a_killed_worker_is_started_again_and_its_job_ends(tmp_path: Path, origin: ImageServer, samples: Path) -> None:
    url = origin.on("/glass.jpg", silence()) + f"?signature={SECRET}"
    with running_bunri(tmp_path / "data", env=ALLOW | {"WORKERS_LEASE": "2"}) as up:
        job_id = submit(up, url)
        wait_until(lambda: len(origin.requests) == 1)
        origin.on("/glass.jpg", reply(200, (samples / "glass-1.jpg").read_bytes()))
        [worker] = up.pids("worker")
        os.kill(worker, signal.SIGKILL)
        job = job_of(up, job_id, wait=30)
        assert (job["status"], job["attempts"]) == ("completed", 2)
        metrics = httpx.get(f"{up.api}/metrics", trust_env=False).text
        tasks = httpx.get(f"{up.url_of('Flower')}/tasks", trust_env=False).text
        assert "worker-1 ended" in up.printed
        assert SECRET not in up.logs() + up.printed + metrics + tasks
        assert job_id in up.logs()
