"""The least that can tell many clients of an event: `python -m benchmarks.transports`.

uvloop's transports and nothing around them: no HTTP but a head, no queue, nobody who looks whether a client is slow.
Prints its port. To each line of JSON, a path and an event, it writes the event to all who asked for that path, one
after the other, and says to how many.
"""

import asyncio
import json
import sys
from collections import defaultdict
from typing import cast

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

followers: dict[str, list[asyncio.Transport]] = defaultdict(list)


class Follower(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        self._path = data.split()[1].decode()
        followers[self._path].append(self._transport)
        self._transport.write(HEAD)

    def connection_lost(self, _error: Exception | None) -> None:
        followers[self._path].remove(self._transport)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Follower, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        told = json.loads(line)
        event = told["event"].encode()
        for transport in followers[told["path"]]:
            transport.write(event)
        print(len(followers[told["path"]]), flush=True)


if __name__ == "__main__":
    uvloop.run(serve())
