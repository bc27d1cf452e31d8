"""A wire between a client and a server that can be cut, reset, silenced or held at a chosen moment.

`async with relay(port) as wire:` and let the client connect to `wire.port`. Runs on the caller's loop.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

from tests.support.wait import eventually

PIECE = 65_536
MEMORY = 4_096
"""Bytes of the pieces before that are looked at again, since what is looked for may be split between two."""

LINGER = struct.pack("ii", 1, 0)


class Way(StrEnum):
    """Which way bytes go, as seen by the client."""

    OUT = "out"
    IN = "in"


@dataclass(eq=False)
class Trap:
    """Waits for bytes that match on one way of a connection, and from then on holds all bytes on the way `holds`.

    Where both are the same way, the bytes that matched are held, too.
    """

    matches: Callable[[bytes], bool]
    on: Way
    holds: Way
    seen: bytes = b""
    """What matched."""
    caught: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _tails: dict[object, bytes] = field(default_factory=dict)

    def release(self) -> None:
        self.released.set()

    def springs(self, connection: object, piece: bytes) -> bool:
        """Whether the bytes since the trap was set match; what came before it was set does not count."""
        self.seen = self._tails.get(connection, b"") + piece
        self._tails[connection] = self.seen[-MEMORY:]
        return self.matches(self.seen)


@dataclass(eq=False)
class Relay:
    """All connections of one client process to one server."""

    target: int
    port: int = 0
    traps: list[Trap] = field(default_factory=list)
    audible: asyncio.Event = field(default_factory=asyncio.Event)
    _links: set["_Link"] = field(default_factory=set)

    def trap(self, matches: Callable[[bytes], bool], *, on: Way = Way.OUT, holds: Way | None = None) -> Trap:
        """Springs once, for the first connection whose bytes match."""
        trap = Trap(matches, on, holds or on)
        self.traps.append(trap)
        return trap

    def silence(self) -> None:
        """Take connections and pass on nothing, in no direction, until `resume`; what was sent meanwhile comes then."""
        self.audible.clear()

    def resume(self) -> None:
        self.audible.set()

    def reset(self) -> int:
        """Tear down every connection, each end with a RST. Returns how many."""
        links = tuple(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def closed(self) -> None:
        """Until no connection is left."""
        await eventually(self._has_no_links)

    async def _has_no_links(self) -> bool:
        return not self._links

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # As a server that is down answers: the connection does not last.
            _reset(writer)
            return
        link = _Link(self, writer, server_writer)
        self._links.add(link)
        try:
            await link.run(reader, server_reader)
        finally:
            self._links.discard(link)


class _Link:
    """One connection and its other half."""

    def __init__(self, relay: Relay, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._relay = relay
        self._client = client
        self._server = server
        self._held: dict[Way, Trap] = {}

    async def run(self, client: asyncio.StreamReader, server: asyncio.StreamReader) -> None:
        ways = [
            asyncio.create_task(self._pass_on(Way.OUT, client, self._server)),
            asyncio.create_task(self._pass_on(Way.IN, server, self._client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._client.close()
            self._server.close()

    def reset(self) -> None:
        _reset(self._client)
        _reset(self._server)

    async def _pass_on(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(PIECE):
                self._spring(way, piece)
                if trap := self._held.get(way):
                    await trap.released.wait()
                    del self._held[way]
                await self._relay.audible.wait()
                writer.write(piece)
                await writer.drain()

    def _spring(self, way: Way, piece: bytes) -> None:
        for trap in self._relay.traps:
            if trap.on is way and trap.springs(self, piece):
                self._relay.traps.remove(trap)
                self._held[trap.holds] = trap
                trap.caught.set()
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    writer.transport.abort()


@asynccontextmanager
async def relay(target: int) -> AsyncIterator[Relay]:
    """Listens on a port of its own until the block ends. Nothing needs to listen on `target` yet."""
    wire = Relay(target)
    wire.resume()
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        wire.resume()
        wire.reset()
        await wire.closed()
