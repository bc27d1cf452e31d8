"""An origin that misbehaves on purpose, on a real socket: `with image_server() as origin: origin.on("/x", drip(…))`.

`python -m tests.support.image_server DIR --port N` serves a folder instead.
"""

import argparse
import asyncio
import contextlib
import gzip
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

TLS_HANDSHAKE = b"\x16"


@dataclass(frozen=True)
class Request:
    """What a client sent: the target exactly as on the wire, header names in lower case."""

    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Writes a response, or fails to. The connection is closed afterwards unless the answer was complete."""


@dataclass
class ImageServer:
    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    fallback: Callable[[Request], Answer] = lambda _request: reply(404)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def on(self, path: str, answer: Answer) -> str:
        """Set the answer for a path and return its URL."""
        self.answers[path] = answer
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                await (self.answers.get(request.path) or self.fallback(request))(writer)
                if writer.is_closing():
                    return
                await writer.drain()
        writer.close()


@contextmanager
def image_server(fallback: Callable[[Request], Answer] | None = None, port: int = 0) -> Iterator[ImageServer]:
    """Runs on a thread of its own, so that tests with and without a loop, and other processes, can use it."""
    server = ImageServer(port)
    if fallback is not None:
        server.fallback = fallback
    ready, loop = threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=_run, args=(server, loop, ready), daemon=True)
    thread.start()
    assert ready.wait(20), f"cannot listen on port {port}"
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def reply(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A complete response. `Content_Length=…` replaces the true one; an underscore stands for a hyphen."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(status, {"Content-Length": str(len(body)), **_names(headers)}) + body)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    return reply(status, Location=location)


def compressed(body: bytes, encoding: str = "gzip") -> Answer:
    """Sent with a Content-Encoding nobody asked for. Zeros make a bomb of a thousandfold."""
    return reply(200, gzip.compress(body), Content_Encoding=encoding)


def silence(*, headers: bool = False) -> Answer:
    """Hang: before the status line, or after the headers."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        if headers:
            writer.write(_head(200, {"Content-Length": "1000"}))
        await asyncio.Event().wait()

    return answer


def drip(body: bytes, every: float, status: int = 200) -> Answer:
    """One byte at a time, always in time for a read limit."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(status, {"Content-Length": str(len(body))}))
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(every)

    return answer


def trickle(head: bytes, every: float) -> Answer:
    """The head of a response one byte at a time, without ever coming to its end."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for byte in head:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(every)
        await asyncio.Event().wait()

    return answer


def cut(body: bytes, at: int) -> Answer:
    """Promises the whole body and closes after `at` bytes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"Content-Length": str(len(body))}) + body[:at])
        await writer.drain()
        writer.close()

    return answer


def reset(*, after: bytes = b"") -> Answer:
    """Tears the connection down with a RST, after some bytes or at once."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        if after:
            writer.write(_head(200, {"Content-Length": str(len(after) + 1000)}) + after)
            await writer.drain()
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return answer


def endless(piece: bytes, start: bytes = b"", **headers: str) -> Answer:
    """Chunks for as long as the client takes them, the first one with `start` before it."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"Transfer-Encoding": "chunked", **_names(headers)}))
        if start:
            writer.write(f"{len(start):x}\r\n".encode() + start + b"\r\n")
        while True:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()

    return answer


def raw(data: bytes) -> Answer:
    """These bytes instead of HTTP, and the end."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return answer


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port whose host takes no connection and refuses none: to connect hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def folder_server(folder: Path, port: int = 0) -> Iterator[ImageServer]:
    """The files of one folder, by name."""

    def answer(request: Request) -> Answer:
        file = folder / Path(request.path).name
        return reply(200, file.read_bytes()) if file.is_file() else reply(404)

    with image_server(answer, port) as server:
        yield server


def _run(server: ImageServer, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
    asyncio.set_event_loop(loop)

    @contextlib.asynccontextmanager
    async def listening() -> AsyncIterator[None]:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", server.port)
        server.port = listener.sockets[0].getsockname()[1]
        ready.set()
        yield
        listener.close()

    context = listening()
    loop.run_until_complete(context.__aenter__())
    loop.run_forever()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """None for a client that speaks TLS, which this origin does not."""
    first = await reader.readexactly(1)
    if first == TLS_HANDSHAKE:
        return None
    lines = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    named = (line.split(": ", 1) for line in lines[1:] if line)
    headers = {name.lower(): value for name, value in named}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(lines[0].split(" ")[1], headers, body)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the files of one folder on loopback.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with folder_server(options.folder, options.port) as server:
        print(server.url("/"), flush=True)  # noqa: T201 - whoever started it reads the port here
        threading.Event().wait()


if __name__ == "__main__":
    main()
