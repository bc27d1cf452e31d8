"""Pool of decode processes: bytes → SourceImage, without decoding anything in this process.

A decode process that exceeds its limits or crashes is killed and replaced; only the job whose photo it had fails.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import Internal, PipelineError, SourceCorruptImage, SourceTooLarge, SourceUnsupportedMedia
from pipeline.intake.image import FRAME, Bounds
from pipeline.settings import PipelineSettings
from pipeline.types import SourceImage

ROOT = Path(__file__).parents[2]

ERRORS = {kind.spec.code: kind for kind in (SourceTooLarge, SourceCorruptImage, SourceUnsupportedMedia, Internal)}
"""Code → error, of all that a decode process may reply."""

MAX_START_SECONDS = 30.0
STREAM_BUFFER_BYTES = 1024 * 1024
STALL_FACTOR = 6.0
"""Wall-clock limit as a multiple of the CPU limit. A loaded machine is slow; a process that takes longer is stuck."""


class ImageDecoder:
    """Pool of at most `image_processes` processes, started on demand and kept; further jobs wait for one.

    Belongs to one event loop.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.image_processes)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._ending: set[asyncio.Future[int]] = set()
        self._is_closed = False

    async def prepare(self, data: bytes) -> SourceImage:
        """A small, upright JPEG without metadata. Tries once more if something else killed the decode process.

        Raises `source.*` errors, or Internal if decoding stalls or a decoder cannot be loaded.
        """
        try:
            return await self._prepare(data)
        except DecoderKilled:
            return await self._prepare(data)

    async def _prepare(self, data: bytes) -> SourceImage:
        async with self._slots:
            process = await self._acquire()
            try:
                async with asyncio.timeout(self._settings.image_cpu_seconds * STALL_FACTOR):
                    answer, body = await process.ask(data)
            except TimeoutError as error:
                await self._end(process)
                raise Internal("the decode process stalled") from error
            except (OSError, EOFError) as error:
                code = await self._end(process)
                raise (Internal("the decoder was closed") if self._is_closed else _exit_error(code)) from error
            except BaseException:  # Cancelled, or a malformed reply: the socket may still bring this photo's bytes.
                self._end(process)
                raise
            self._idle.append(process)
        if answer["code"] is not None:
            raise ERRORS[answer["code"]](answer["detail"])
        return SourceImage(
            media_type="image/jpeg",
            data=body,
            width=answer["width"],
            height=answer["height"],
            sha256=answer["sha256"],
        )

    async def close(self) -> None:
        """Kill all processes, for good. Jobs in flight and waiting jobs fail with Internal."""
        self._is_closed = True
        self._idle.clear()
        for process in list(self._all):
            self._end(process)
        await asyncio.gather(*self._ending)

    async def _acquire(self) -> "_Process":
        if self._is_closed:
            raise Internal("the decoder is closed")
        while self._idle:
            process = self._idle.pop()
            if process.is_alive():
                return process
            self._end(process)
        process = _Process(self._settings)
        self._all.add(process)
        try:
            async with asyncio.timeout(MAX_START_SECONDS):
                await process.open()
        except (OSError, EOFError, TimeoutError) as error:
            code = await self._end(process)
            raise Internal(f"the decode process did not start: exit status {code}") from error
        except asyncio.CancelledError:
            self._end(process)
            raise
        return process

    def _end(self, process: "_Process") -> "asyncio.Future[int]":
        """Kill a process. The future returns its exit status, also if it was dead already."""
        self._all.discard(process)
        process.kill()
        ending = asyncio.get_running_loop().run_in_executor(None, process.wait)
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending


class DecoderKilled(SourceTooLarge):
    """SIGKILL from outside, as the kernel sends when memory is short: no image makes its process end this way."""


class _Process:
    """One `python -m pipeline.intake.image`. Of our files it has only one end of a socket open, as its standard input.

    When this process dies, for whatever reason, that socket closes and the child ends its loop.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._popen: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-E", "-W", "ignore", "-m", "pipeline.intake.image", _arguments(settings)],
                cwd=ROOT,
                env={},  # The settings hold secrets that a hijacked decoder must not find.
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal must reach only the worker, which finishes its jobs.
            )
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Connect, and wait for the child's first message: it is ready."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=STREAM_BUFFER_BYTES)
        await self._receive()

    async def ask(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        assert self._writer is not None  # noqa: S101 - the pool opens it first
        self._writer.write(FRAME.pack(0, len(data)))
        self._writer.write(data)
        await self._writer.drain()
        return await self._receive()

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def kill(self) -> None:
        self._popen.kill()
        # Without a writer `open` still runs: it reads the socket's end, or asyncio closes the socket.
        if self._writer is not None:
            self._writer.transport.abort()

    def wait(self) -> int:
        return self._popen.wait()

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        head, body = FRAME.unpack(await self._reader.readexactly(FRAME.size))
        answer: dict[str, Any] = json.loads(await self._reader.readexactly(head))
        return answer, await self._reader.readexactly(body)


def _arguments(settings: PipelineSettings) -> str:
    bounds = Bounds(
        long_side=settings.image_long_side,
        max_pixels=settings.image_max_pixels,
        max_pixels_other=settings.image_max_pixels_other,
        heic=settings.image_heic,
    )
    return json.dumps(
        {
            "bounds": asdict(bounds),
            "cpu_seconds": settings.image_cpu_seconds,
            "memory_bytes": settings.image_memory_bytes,
        }
    )


def _exit_error(code: int) -> PipelineError:
    if code == -signal.SIGPROF:
        return SourceTooLarge("more CPU time than one image may take")
    if code == -signal.SIGKILL:
        return DecoderKilled("the decode process was killed twice; the machine may lack memory")
    return SourceCorruptImage(f"the decode process ended with {code}")
