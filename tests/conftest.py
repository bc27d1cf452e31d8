"""For all tests: a clean environment, a real Redis, a watch over keys without a TTL, and long tests first."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jobs.redis.keys import PERMANENT_KEYS
from tests.support.redis_server import RedisServer, other_clients, start_redis
from tests.support.wait import wait_until

SETTINGS = (
    "OPENAI_", "VISION_MODEL", "TEXT_MODEL", "FALLBACK_MODEL", "MODEL_BUDGET", "REDIS_URL", "BROKER_URL", "FETCH_ALLOW",
    "RESULT_TTL", "CORS_ORIGINS", "LOG_LEVEL", "PIPELINE_", "WORKERS_", "API_", "CELERY_",
)  # fmt: skip
"""Prefixes of variables that would change what is tested if they leaked in from a developer's shell."""

BROKER_KEYS = ("_kombu.", "unacked", "bunri.jobs", "celery")
"""Keys that kombu keeps for ever; the broker owns them."""

LONG = (
    "tests/chaos/",
    "tests/e2e/test_up.py",
    "tests/e2e/test_page_",
    "tests/integration/workers/test_upstream_trouble.py",
    "tests/integration/questions/test_chat.py",
    "tests/integration/jobs/test_two_redis.py",
    "tests/integration/cli/test_evaluation.py",
    "tests/integration/jobs/test_redis_trouble.py",
    "tests/e2e/test_demo.py",
    "tests/integration/workers/test_worker.py",
    "tests/integration/workers/test_shared_worker.py",
    "tests/integration/jobs/test_usage.py",
    "tests/integration/api/test_streams.py",
    "tests/integration/jobs/test_rabbitmq.py",
    "tests/integration/workers/test_webhook_worker.py",
    "tests/integration/workers/test_lanes.py",
    "tests/integration/jobs/test_url.py",
    "tests/integration/workers/test_budget.py",
    "tests/integration/intake/test_intake.py",
    "tests/integration/workers/test_reload.py",
    "tests/integration/models/test_error_catalogue.py",
)
"""Where tests take seconds each, because they start processes or wait. The longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the long tests over the processes of xdist, each of which begins with its own.

    For `--dist worksteal`: it cuts this list into as many equal pieces as there are processes. One that is done with
    its piece is given tests from the end of another's, so that nobody is left with a long test when all others end.
    Within these bounds the order is that of pytest-randomly.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = sorted((item for item in items if item.nodeid.startswith(LONG)), key=_place_among_long)
    short = [item for item in items if not item.nodeid.startswith(LONG)]
    sizes = [len(items[process::processes]) for process in reversed(range(processes))]
    items.clear()
    for process, size in enumerate(sizes):
        mine = long[process::processes]
        rest = max(0, size - len(mine))
        items += mine + short[:rest]
        short = short[rest:]


def _place_among_long(item: pytest.Item) -> int:
    return next(place for place, start in enumerate(LONG) if item.nodeid.startswith(start))


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
    """An empty Redis. What outlives the test fails it: a key that stays for ever, a process that is still connected.

    A worker that a whole module shares is connected before, and rests between two tests (`tests/support/worker.py`).
    """
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        is_shared = bool(other_clients(client))
        yield redis_server.url
        assert _keys_for_ever(client) == []
        if not is_shared:
            wait_until(lambda: other_clients(client) == [])


def _keys_for_ever(client: redis.Redis) -> list[str]:
    keys = [key.decode() for key in client.scan_iter()]
    mine = [key for key in keys if key not in PERMANENT_KEYS and not key.startswith(BROKER_KEYS)]
    return [key for key in mine if client.ttl(key) == -1]


@pytest.fixture
def samples() -> Path:
    return Path(__file__).parent.parent / "samples"
