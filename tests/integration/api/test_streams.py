"""Many event streams at once, against a real API process: clients that vanish, an API that stops or is killed."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from api.routes.events import EventStream
from jobs.feed import feed as feed_module
from jobs.feed.feed import Feed
from jobs.feed.followers import MAX_INBOX
from jobs.ledger.ledger import Ledger
from jobs.model import Claim, JobEvent
from jobs.settings import JobsSettings
from pipeline.types import Stage
from tests.support.api_server import running_api
from tests.support.jobs import new_job, result, started
from tests.support.redis_server import free_port
from tests.support.wait import eventually

STREAMS = 200

pytestmark = pytest.mark.timeout(300)


@asynccontextmanager
async def api_process(redis_url: str, port: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    env = os.environ | {"REDIS_URL": redis_url, "API_PORT": str(port), "LOG_LEVEL": "ERROR"}
    process = subprocess.Popen([sys.executable, "-m", "api"], env=env)  # noqa: ASYNC220 - it only forks
    try:
        await eventually(lambda: _listens(port), within=60)
        yield process
    finally:
        process.kill()
        process.wait()


class Client:
    """A browser's EventSource, bare: one connection and what has come over it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.ids: list[int] = []
        self.received = ""
        self.has_ended = False

    async def open(self, job_id: str) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        last = f"Last-Event-ID: {self.ids[-1]}\r\n" if self.ids else ""
        self.writer.write(f"GET /api/v1/scan/{job_id}/events HTTP/1.1\r\nHost: x\r\n{last}\r\n".encode())
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while line := (await self.reader.readline()).decode():
                self.received += line
                if line.startswith("id: "):
                    self.ids.append(int(line[4:]))
        except ConnectionError:
            pass
        self.has_ended = True

    def vanish(self) -> None:
        """As a phone that loses its network: by reset, not by goodbye."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def following(port: int, job_id: str, count: int = STREAMS) -> list[Client]:
    clients = [Client(port) for _ in range(count)]
    await asyncio.gather(*(client.open(job_id) for client in clients))
    await eventually(lambda: _all(client.ids != [] for client in clients), within=60)
    return clients


async def claimed(ledger: Ledger) -> Claim:
    job = new_job()
    await ledger.submissions.create(job)
    claim = await ledger.claims.claim(job.job_id)
    assert claim
    return claim


def open_files(process: subprocess.Popen[bytes]) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


async def test_clients_that_vanish_leave_nothing_behind(ledger: Ledger, redis_url: str) -> None:
    port = free_port()
    async with api_process(redis_url, port) as process:
        claim = await claimed(ledger)
        await following_and_vanishing(port, claim.job_id)
        before = open_files(process)
        await following_and_vanishing(port, claim.job_id)
        await eventually(lambda: _all([open_files(process) <= before + 5]))
        await ledger.claims.complete(claim, result())


async def following_and_vanishing(port: int, job_id: str) -> None:
    for client in await following(port, job_id):
        client.vanish()


async def test_followers_and_tasks_are_gone_when_their_clients_are(ledger: Ledger, jobs_settings: JobsSettings) -> None:
    async with running_api(jobs_settings) as api:
        claim = await claimed(ledger)
        port = api.client.base_url.port
        assert port
        tasks = len(asyncio.all_tasks())
        clients = await following(port, claim.job_id)
        assert len(api.services.feed.backlogs(claim.job_id)) == STREAMS
        for client in clients:
            client.vanish()
        await eventually(lambda: _all([not api.services.feed.backlogs()]))
        await eventually(lambda: _all([len(asyncio.all_tasks()) <= tasks + 2]))


async def test_a_stopping_api_ends_its_streams_with_a_hint_and_exits(ledger: Ledger, redis_url: str) -> None:
    port = free_port()
    async with api_process(redis_url, port) as process:
        clients = await following(port, (await claimed(ledger)).job_id)
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: _all(client.has_ended for client in clients))
        assert await asyncio.to_thread(process.wait, 20) == -signal.SIGTERM  # as uvicorn does, when it has ended all
    assert [client.received.count("retry: ") for client in clients] == [2] * STREAMS


async def test_a_stopping_api_answers_long_polls_with_the_job_as_it_is(ledger: Ledger, redis_url: str) -> None:
    port = free_port()
    job_id = (await claimed(ledger)).job_id
    async with api_process(redis_url, port) as process, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        url = f"http://127.0.0.1:{port}/api/v1/scan/{job_id}"
        polling = asyncio.create_task(http.get(url, params={"wait": 50}))
        clients = await following(port, job_id, 1)
        process.send_signal(signal.SIGTERM)
        assert (await polling).json()["status"] == "running"
        await eventually(lambda: _all(client.has_ended for client in clients))


async def test_streams_of_a_killed_api_go_on_at_another_without_loss_or_repeat(ledger: Ledger, redis_url: str) -> None:
    first, second = free_port(), free_port()
    claim = await claimed(ledger)
    async with api_process(redis_url, second):
        async with api_process(redis_url, first) as process:
            clients = await following(first, claim.job_id, 50)
            await ledger.claims.record(claim, started(Stage.FETCH))
            await eventually(lambda: _all(client.ids == [1, 2] for client in clients))
            process.kill()
            await eventually(lambda: _all(client.has_ended for client in clients))
        await ledger.claims.complete(claim, result())
        for client in clients:
            client.port, client.has_ended = second, False
        await asyncio.gather(*(client.open(claim.job_id) for client in clients))
        await eventually(lambda: _all(client.ids == [1, 2, 3, 4] for client in clients))
        done = [line for line in clients[0].received.splitlines() if line.startswith("data: ")][-1]
        assert json.loads(done.removeprefix("data: "))["outcome"] == "completed"


async def test_a_stream_of_a_job_that_redis_has_lost_ends(
    ledger: Ledger, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "KEEPALIVE_SECONDS", 0.05)
    job_id = (await ledger.submissions.create(new_job())).job_id
    events = feed.follow(job_id)
    assert await anext(events)
    await ledger.client.flushdb()
    async with asyncio.timeout(20):
        assert [event async for event in events if event is not None] == []


async def test_a_follower_who_is_slow_holds_few_events_and_misses_none(ledger: Ledger, feed: Feed) -> None:
    claim = await claimed(ledger)
    events = feed.follow(claim.job_id)
    await anext(events)
    lengths: list[int] = []
    for _ in range(MAX_INBOX * 3):
        await ledger.claims.record(claim, started(Stage.VISION))
        lengths += feed.backlogs(claim.job_id)
    await ledger.claims.complete(claim, result())
    await eventually(lambda: _all([feed.backlogs(claim.job_id)[0] > 0]))
    assert MAX_INBOX // 2 < max(lengths) <= MAX_INBOX
    seen = [event.seq async for event in events if isinstance(event, JobEvent)]
    assert seen == list(range(2, MAX_INBOX * 3 + 4))


async def test_a_client_that_stops_reading_gets_all_in_the_end_and_nothing_twice(
    ledger: Ledger, redis_url: str
) -> None:
    """More than the kernel and the server buffer: the stream waits until the client reads on."""
    port, count = free_port(), 24_000
    claim = await claimed(ledger)
    async with api_process(redis_url, port):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            connection.sendall(f"GET /api/v1/scan/{claim.job_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = connection.recv(1024)
            for _ in range(count // 200):
                await asyncio.gather(*(ledger.claims.record(claim, started(Stage.VISION)) for _ in range(200)))
            await ledger.claims.complete(claim, result())
            connection.settimeout(30)
            while b"event: done" not in received[-4096:]:
                received += await asyncio.to_thread(connection.recv, 65536)
    ids = [int(line[4:]) for line in received.splitlines() if line.startswith(b"id: ")]
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) > count


async def test_a_client_that_takes_nothing_is_followed_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.routes.events.SEND_SECONDS", 0.05)
    closed = asyncio.Event()

    async def chunks(_disconnected: object) -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b": keepalive\n\n"
        finally:
            closed.set()

    async def send(message: object) -> None:
        if isinstance(message, dict) and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    await EventStream(chunks)({"type": "http"}, receive, send)
    assert closed.is_set()


async def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _all(conditions: Iterable[bool]) -> bool:
    return all(conditions)
