"""A TCP connection with a knife in the middle: passes bytes on until it is told to cut every connection, by reset."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Cuttable:
    """Listens on `port` of loopback, in the event loop it was made on."""

    target: int
    port: int = 0
    _pairs: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def connections(self) -> int:
        return len(self._writers) // 2

    def cut(self) -> None:
        """Reset what is connected now; who connects anew gets through."""
        for writer in tuple(self._writers):
            end: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(_pass_on(source, sink))
            self._pairs.add(task)
            task.add_done_callback(self._pairs.discard)
            task.add_done_callback(lambda _, sink=sink: self._writers.discard(sink))  # type: ignore[misc]


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def cuttable(target: int) -> AsyncIterator[Cuttable]:
    knife = Cuttable(target)
    server = await asyncio.start_server(knife.accept, "127.0.0.1", 0)
    knife.port = server.sockets[0].getsockname()[1]
    try:
        yield knife
    finally:
        server.close()
        knife.cut()
        await asyncio.gather(*knife._pairs, return_exceptions=True)
