"""The asyncio pool inside a real Celery worker process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from celery import Celery

from tests.support.pool_app import QUEUE
from tests.support.wait import wait_until

CONCURRENCY = 8

Sender = Callable[..., Any]
"""`Celery.send_task`, which has no types."""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
        client.flushall()


@pytest.fixture
def send_task(redis_url: str) -> Iterator[Sender]:
    """On a connection of its own, closed at the end: Celery's pools close theirs with the process."""
    app = Celery("sender", broker=redis_url, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    with app.connection_for_write() as connection:
        yield partial(app.send_task, connection=connection)


@pytest.fixture
def worker(client: redis.Redis, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "tests.support.pool_app",
        "worker",
        f"--concurrency={CONCURRENCY}",
        "-l",
        "WARNING",
    ]
    process = subprocess.Popen(command, env=os.environ | {"BROKER": redis_url})
    wait_until(lambda: "open" in seen(client))
    yield process
    process.kill()
    process.wait()


def seen(client: redis.Redis) -> list[str]:
    return [str(entry) for entry in client.lrange("seen", 0, -1)]


def unacknowledged(client: redis.Redis) -> int:
    return int(client.hlen("unacked"))


def waiting(client: redis.Redis) -> int:
    return int(client.llen(QUEUE))


@pytest.mark.usefixtures("worker")
def test_tasks_run_at_the_same_time_up_to_the_concurrency(send_task: Sender, client: redis.Redis) -> None:
    for _ in range(CONCURRENCY):
        send_task("meet", (CONCURRENCY,))
    wait_until(lambda: seen(client).count("met") == CONCURRENCY)
    wait_until(lambda: unacknowledged(client) == 0)


@pytest.mark.usefixtures("worker")
def test_no_more_messages_are_taken_than_the_concurrency(send_task: Sender, client: redis.Redis) -> None:
    for _ in range(CONCURRENCY + 5):
        send_task("hang")
    wait_until(lambda: seen(client).count("hanging") == CONCURRENCY)
    assert waiting(client) == 5


@pytest.mark.usefixtures("worker")
def test_a_task_that_breaks_is_acknowledged_and_the_pool_goes_on(send_task: Sender, client: redis.Redis) -> None:
    for _ in range(CONCURRENCY + 1):
        send_task("break")
    send_task("meet", (1,))
    wait_until(lambda: "met" in seen(client))
    wait_until(lambda: unacknowledged(client) == 0)


def test_sigterm_gives_unfinished_tasks_back_to_the_queue(
    worker: subprocess.Popen[bytes], send_task: Sender, client: redis.Redis
) -> None:
    send_task("hang")
    wait_until(lambda: "hanging" in seen(client))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == 0
    assert seen(client)[-2:] == ["released", "close"]
    assert (waiting(client), unacknowledged(client)) == (1, 0)


def test_sigterm_lets_a_task_that_ends_in_time_end(
    worker: subprocess.Popen[bytes], send_task: Sender, client: redis.Redis
) -> None:
    send_task("meet", (2,))
    wait_until(lambda: client.get("present") == "1")
    worker.send_signal(signal.SIGTERM)
    client.incr("present")
    assert worker.wait(timeout=20) == 0
    assert "met" in seen(client)
    assert (waiting(client), unacknowledged(client)) == (0, 0)
