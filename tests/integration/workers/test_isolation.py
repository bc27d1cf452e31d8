"""The checks at the end of each test: what outlives a test fails it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from tests.support import redis_server
from tests.support.jobs import new_job
from tests.support.redis_server import RedisServer, closed_port, expect_nobody_else, start_redis
from tests.support.worker import let_rest

SOON = 0.2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = start_redis(tmp_path)
    yield server
    server.stop()


def test_a_client_that_stays_connected_fails_its_test(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as ours:
        with redis.Redis.from_url(server.url) as left_open:
            left_open.ping()
            with pytest.raises(AssertionError):
                expect_nobody_else(ours, within=SOON)
        expect_nobody_else(ours)


async def test_a_job_that_waits_or_runs_fails_its_test(server: RedisServer) -> None:
    ledger = Ledger.connect(JobsSettings.model_validate({"redis_url": server.url}))
    job = new_job()
    await ledger.submissions.create(job)
    with pytest.raises(AssertionError):
        let_rest(server.url, within=SOON)
    claim = await ledger.claims.claim(job.job_id)
    assert claim is not None
    with pytest.raises(AssertionError):
        let_rest(server.url, within=SOON)
    await ledger.submissions.cancel(job.job_id)
    let_rest(server.url)
    await ledger.close()


def test_a_redis_starts_on_another_port_when_its_port_has_been_taken(
    tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if what has taken it is a Redis that answers."""
    free = redis_server.free_port()
    ports = iter([closed_port(), server.port, free])
    monkeypatch.setattr(redis_server, "free_port", lambda: next(ports))
    (tmp_path / "other").mkdir()
    other = start_redis(tmp_path / "other")
    other.stop()
    assert other.port == free
