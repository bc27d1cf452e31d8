"""Fixtures for all tests: a clean environment, a real Redis, and a watch over keys without a TTL."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.redis_server import RedisServer, start_redis
from workers.jobs.ledger import PERMANENT_KEYS

SETTINGS = (
    "OPENAI_", "VISION_MODEL", "TEXT_MODEL", "FALLBACK_MODEL", "MODEL_BUDGET", "REDIS_URL", "BROKER_URL", "FETCH_ALLOW",
    "RESULT_TTL", "CORS_ORIGINS", "LOG_LEVEL", "PIPELINE_", "WORKERS_", "API_", "CELERY_",
)  # fmt: skip
"""Prefixes of variables that would change what is tested if they leaked in from a developer's shell."""

BROKER_KEYS = ("_kombu.", "unacked", "bunri.jobs", "celery")
"""Keys that kombu keeps for ever; the broker owns them."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the shell reaches a test."""
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """An empty Redis. Afterwards each key must have a TTL or be on the short permanent list."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield redis_server.url
        assert _keys_for_ever(client) == []


def _keys_for_ever(client: redis.Redis) -> list[str]:
    keys = [key.decode() for key in client.scan_iter()]
    mine = [key for key in keys if key not in PERMANENT_KEYS and not key.startswith(BROKER_KEYS)]
    return [key for key in mine if client.ttl(key) == -1]


@pytest.fixture
def samples() -> Path:
    return Path(__file__).parent.parent / "samples"
