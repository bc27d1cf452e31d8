"""URL → bytes: each redirect checked again, size and time bounded.

A URL's query may hold credentials: details hold host, path and upstream status, nothing else.
"""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urljoin

import aiohttp

from kit.address import AddressGuard, CheckedUrl
from kit.dates import retry_after
from kit.http import GuardedClient, Lookup, system_lookup
from pipeline.errors import (
    PipelineError,
    SourceForbidden,
    SourceNotFound,
    SourceTimeout,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnsupportedMedia,
    SourceUrlExpired,
    SourceUrlUnsafe,
)
from pipeline.intake.expiry import has_expired, is_expired_answer
from pipeline.settings import PipelineSettings

MAX_ERROR_BODY = 8192
MAX_PIECE = 256 * 1024
"""Most bytes decompressed in one step, so that a bomb is stopped before it is in memory."""

HEADERS = {
    "User-Agent": "Bunri/0.1 (image fetcher)",
    "Accept": "image/jpeg,image/png;q=0.9,image/webp;q=0.9,image/*;q=0.8,*/*;q=0.1",
    "Accept-Encoding": "identity",
}

REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Fetcher:
    """One per process: its connections are pooled."""

    def __init__(self, settings: PipelineSettings, guard: AddressGuard, *, lookup: Lookup = system_lookup) -> None:
        self._settings = settings
        self._guard = guard
        self._client = GuardedClient(
            guard,
            connect_timeout=settings.fetch_connect_timeout,
            read_timeout=settings.fetch_read_timeout,
            headers=HEADERS,
            lookup=lookup,
        )

    async def fetch(self, url: str) -> bytes:
        """The body, at most `fetch_max_bytes` of it. Raises `source.*` errors only."""
        try:
            async with asyncio.timeout(self._settings.fetch_total_timeout):
                return await self._follow(self._check(url))
        except TimeoutError as error:
            raise SourceTimeout("the fetch took too long") from error

    async def close(self) -> None:
        await self._client.close()

    async def _follow(self, target: CheckedUrl) -> bytes:
        for _ in range(self._settings.fetch_max_redirects + 1):
            async with self._client.request("GET", target) as response:
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or location is None:
                    return await self._take(target, response)
            target = self._check(_joined(target, location))
        raise SourceUnreachable(f"{target.place}: too many redirects")

    def _check(self, url: str) -> CheckedUrl:
        target = self._guard.check_url(url)
        if has_expired(target.url, datetime.now(UTC)):
            raise SourceUrlExpired(f"{target.place}: its own expiry has passed")
        return target

    async def _take(self, target: CheckedUrl, response: aiohttp.ClientResponse) -> bytes:
        if 200 <= response.status < 300:  # noqa: PLR2004 - the successes
            return await self._read_image(target, response)
        body = await self._read_error(response)
        if is_expired_answer(target.url, response.status, body, datetime.now(UTC)):
            raise SourceUrlExpired(f"{target.place}: upstream {response.status}")
        raise _refusal(target, response)

    async def _read_image(self, target: CheckedUrl, response: aiohttp.ClientResponse) -> bytes:
        limit = self._settings.fetch_max_bytes
        if (response.content_length or 0) > limit:
            raise SourceTooLarge(f"{target.place}: {response.content_length} bytes announced")
        body = _bounded(target, limit, _decoded(target, limit, response))
        return b"".join([piece async for piece in body])

    async def _read_error(self, response: aiohttp.ClientResponse) -> bytes:
        """The beginning of an error body. One that cannot be read, or drips, says nothing; the status still does."""
        body = bytearray()
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(self._settings.fetch_read_timeout):
                while len(body) < MAX_ERROR_BODY and (piece := await response.content.read(MAX_ERROR_BODY)):
                    body += piece
        return bytes(body[:MAX_ERROR_BODY])


def _joined(target: CheckedUrl, location: str) -> str:
    try:
        return urljoin(target.url, location)
    except ValueError as error:
        raise SourceUrlUnsafe(f"{target.place}: redirects to what is not a URL") from error


async def _bounded(target: CheckedUrl, limit: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit:
            raise SourceTooLarge(f"{target.place}: more than {limit} bytes")
        yield piece


async def _decoded(target: CheckedUrl, limit: int, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body's pieces without their Content-Encoding, none larger than MAX_PIECE."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    pieces: AsyncIterator[bytes] = response.content.iter_any()
    if encoding not in {"identity", ""}:
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise SourceUnsupportedMedia(f"{target.place}: an encoding that we did not ask for")
        # What is compressed is counted on both sides: an endless stream may unfold to nothing.
        pieces = _inflated(target, _bounded(target, limit, pieces))
    async for piece in pieces:
        yield piece


async def _inflated(target: CheckedUrl, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib or gzip, by its header
    try:
        async for piece in pieces:
            rest = piece
            while rest:
                yield inflate.decompress(rest, MAX_PIECE)
                rest = inflate.unconsumed_tail
            if inflate.eof:
                return  # zlib would keep in memory whatever follows.
    except zlib.error as error:
        raise SourceUnreachable(f"{target.place}: its compression is broken") from error
    if not inflate.eof:
        raise SourceUnreachable(f"{target.place}: its compressed body breaks off")


def _refusal(target: CheckedUrl, response: aiohttp.ClientResponse) -> PipelineError:
    """Why there is no image, by status. A 4xx without a place of its own means: not for us."""
    status = response.status
    detail = f"{target.place}: upstream {status}"
    if status in {404, 410}:
        return SourceNotFound(detail)
    if status == 408:  # noqa: PLR2004 - Request Timeout
        return SourceTimeout(detail)
    if status == 429 or not 400 <= status < 500:  # noqa: PLR2004 - too many requests; not the caller's fault
        return SourceUnreachable(detail, retry_after=retry_after(response.headers, datetime.now(UTC)))
    return SourceForbidden(detail)
