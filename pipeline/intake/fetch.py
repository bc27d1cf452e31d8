"""URL → bytes: each redirect is checked again, size and time are bounded.

Raises `source.*` errors only; those of `kit.errors` are translated here, in `fetch`. A URL's query may hold
credentials: details hold host, path and upstream status.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from urllib.parse import urljoin

from kit.address import AddressGuard, CheckedUrl
from kit.dates import retry_after
from kit.errors import ConnectTimeout, HostNotFound, HttpError, ReadTimeout, Unreachable, UnsafeUrl
from kit.http import GuardedClient, Lookup, Response, read_start, system_lookup
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

MAX_ERROR_BYTES = 8192
"""Bytes that are read of an error body: enough to see whether it says "expired"."""

MAX_CHUNK_BYTES = 256 * 1024
"""Bytes that one step of decompression may return, so that a bomb is stopped before it is in memory."""

HEADERS = {
    "User-Agent": "Bunri/0.1 (image fetcher)",
    "Accept": "image/jpeg,image/png;q=0.9,image/webp;q=0.9,image/*;q=0.8,*/*;q=0.1",
    "Accept-Encoding": "identity",
}

REDIRECTS = frozenset({301, 302, 303, 307, 308})

SOURCE_ERRORS: Mapping[type[HttpError], type[PipelineError]] = {
    UnsafeUrl: SourceUrlUnsafe,
    HostNotFound: SourceNotFound,
    ConnectTimeout: SourceTimeout,
    ReadTimeout: SourceTimeout,
    Unreachable: SourceUnreachable,
}
"""Guarded HTTP's errors as an image fetch reports them."""


class Fetcher:
    """Fetches photos. One per process: it pools its connections."""

    def __init__(self, settings: PipelineSettings, guard: AddressGuard, *, lookup: Lookup = system_lookup) -> None:
        self._settings = settings
        self._guard = guard
        self._client = GuardedClient(
            guard,
            connect_seconds=settings.fetch_connect_timeout,
            read_seconds=settings.fetch_read_timeout,
            headers=HEADERS,
            lookup=lookup,
        )

    async def fetch(self, url: str) -> bytes:
        """The photo's bytes, decompressed. Raises `source.*` errors only: SourceTooLarge beyond `fetch_max_bytes`."""
        try:
            async with asyncio.timeout(self._settings.fetch_total_timeout):
                return await self._follow(self._check(url))
        except TimeoutError as error:
            raise SourceTimeout("the fetch took too long") from error
        except HttpError as error:
            raise SOURCE_ERRORS[type(error)](str(error)) from error

    async def close(self) -> None:
        await self._client.close()

    async def _follow(self, target: CheckedUrl) -> bytes:
        for _ in range(self._settings.fetch_max_redirects + 1):
            async with self._client.request("GET", target) as response:
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or location is None:
                    return await self._read(target, response)
            target = self._check(_redirect_url(target, location))
        raise SourceUnreachable(f"{target.log_url}: too many redirects")

    def _check(self, url: str) -> CheckedUrl:
        target = self._guard.check_url(url)
        if has_expired(target.url, datetime.now(UTC)):
            raise SourceUrlExpired(f"{target.log_url}: its own expiry has passed")
        return target

    async def _read(self, target: CheckedUrl, response: Response) -> bytes:
        if 200 <= response.status < 300:  # noqa: PLR2004 - the successes
            return await self._read_image(target, response)
        # Best effort: the body may say "expired"; without it the status decides.
        body = await read_start(response, MAX_ERROR_BYTES, self._settings.fetch_read_timeout)
        if is_expired_answer(target.url, response.status, body, datetime.now(UTC)):
            raise SourceUrlExpired(f"{target.log_url}: upstream {response.status}")
        raise _status_error(target, response)

    async def _read_image(self, target: CheckedUrl, response: Response) -> bytes:
        limit = self._settings.fetch_max_bytes
        if (response.content_length or 0) > limit:
            raise SourceTooLarge(f"{target.log_url}: {response.content_length} bytes announced")
        body = _limited(target, limit, _decompressed(target, limit, response))
        return b"".join([chunk async for chunk in body])


def _redirect_url(target: CheckedUrl, location: str) -> str:
    try:
        return urljoin(target.url, location)
    except ValueError as error:
        raise SourceUrlUnsafe(f"{target.log_url}: redirects to something that is not a URL") from error


async def _limited(target: CheckedUrl, limit: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise SourceTooLarge(f"{target.log_url}: more than {limit} bytes")
        yield chunk


async def _decompressed(target: CheckedUrl, limit: int, response: Response) -> AsyncIterator[bytes]:
    """The body's chunks without their Content-Encoding. Decompressed ones have at most MAX_CHUNK_BYTES."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    chunks: AsyncIterator[bytes] = response.content.iter_any()
    if encoding not in {"identity", ""}:
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise SourceUnsupportedMedia(f"{target.log_url}: a Content-Encoding that we did not ask for")
        # Limit the compressed bytes, too: an endless stream may decompress to nothing.
        chunks = _inflate(target, _limited(target, limit, chunks))
    async for chunk in chunks:
        yield chunk


async def _inflate(target: CheckedUrl, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib or gzip, by its header
    try:
        async for chunk in chunks:
            rest = chunk
            while rest:
                yield decompressor.decompress(rest, MAX_CHUNK_BYTES)
                rest = decompressor.unconsumed_tail
            if decompressor.eof:
                return  # zlib would keep in memory what follows.
    except zlib.error as error:
        raise SourceUnreachable(f"{target.log_url}: its compression is broken") from error
    if not decompressor.eof:
        raise SourceUnreachable(f"{target.log_url}: its compressed body breaks off")


def _status_error(target: CheckedUrl, response: Response) -> PipelineError:
    """The error for a status other than 2xx. A 4xx that is not listed means that we may not have the photo."""
    status = response.status
    detail = f"{target.log_url}: upstream {status}"
    if status in {404, 410}:
        return SourceNotFound(detail)
    if status == 408:  # noqa: PLR2004 - Request Timeout
        return SourceTimeout(detail)
    if status == 429 or not 400 <= status < 500:  # noqa: PLR2004 - too many requests; not the caller's fault
        return SourceUnreachable(detail, retry_after=retry_after(response.headers, datetime.now(UTC)))
    return SourceForbidden(detail)
