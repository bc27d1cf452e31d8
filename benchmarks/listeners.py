"""Clients of event streams, a process of their own: `python -m benchmarks.listeners PORT`.

Reads a line of JSON, the paths to GET, and says so when all of them are connected and have got their first bytes; then,
to each further line, when which numbered event has reached which of them: JSON, "client:number" → Unix seconds. As
little as a client can be: a socket, no HTTP library.
"""

import argparse
import asyncio
import json
import re
import resource
import sys
import time
from functools import partial
from typing import cast

import uvloop

AT_ONCE = 64
"""Connections that are being made at the same time."""

NUMBER = re.compile(rb"\nid: (\d+)\n")
LONGEST_LINE = 2**26


class Listener(asyncio.Protocol):
    """One client. Its first bytes are the response's head."""

    def __init__(self, client: int, path: str, arrived: dict[str, float]) -> None:
        self._client = client
        self._path = path
        self._arrived = arrived
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        request = f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
        cast("asyncio.Transport", transport).write(request.encode())  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        now = time.time()
        if not self.answered.done():
            self.answered.set_result(data)
        for number in NUMBER.findall(data):
            self._arrived[f"{self._client}:{int(number)}"] = now

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionError("closed before it was answered"))


async def connect(port: int, paths: list[str], arrived: dict[str, float]) -> int:
    """How many were answered with 200."""
    loop = asyncio.get_running_loop()
    left = enumerate(paths)
    taken = 0

    async def work() -> None:
        nonlocal taken
        for client, path in left:
            _, listener = await loop.create_connection(partial(Listener, client, path, arrived), "127.0.0.1", port)
            head = await listener.answered
            taken += head.startswith(b"HTTP/1.1 200")

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return taken


async def run(port: int) -> None:
    arrived: dict[str, float] = {}
    lines = asyncio.StreamReader(LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    paths = json.loads(await lines.readline())
    began = time.monotonic()
    taken = await connect(port, paths, arrived)
    print(json.dumps({"connected": taken, "seconds": time.monotonic() - began}), flush=True)
    while await lines.readline():
        print(json.dumps(arrived), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(run(parser.parse_args().port))


if __name__ == "__main__":
    main()
