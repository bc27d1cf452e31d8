"""URL → bytes: the address checked where it is dialled, each redirect checked again, size and time bounded.

A URL's query may hold credentials: details hold host, path and upstream status, nothing else.
"""

import asyncio
import contextlib
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import UTC, datetime
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pipeline.address import AddressGuard, CheckedUrl
from pipeline.dates import retry_after
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
from pipeline.expiry import has_expired, is_expired_answer
from pipeline.settings import PipelineSettings

MAX_ERROR_BODY = 8192
MAX_PIECE = 256 * 1024
"""Most bytes decompressed in one step, so that a bomb is stopped before it is in memory."""

RESOLVER_THREADS = 32
"""Lookups at once. uvloop's own getaddrinfo has two slots, so two dead name servers would stop all fetches."""

HEADERS = {
    "User-Agent": "Bunri/0.1 (image fetcher)",
    "Accept": "image/jpeg,image/png;q=0.9,image/webp;q=0.9,image/*;q=0.8,*/*;q=0.1",
    "Accept-Encoding": "identity",
}

REDIRECTS = frozenset({301, 302, 303, 307, 308})

Lookup = Callable[[str, int], list[str]]
"""Host and port → IP addresses. Blocks; raises socket.gaierror."""

AddrInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]

_dialling: ContextVar[CheckedUrl] = ContextVar("dialling")


def system_lookup(host: str, port: int) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Fetcher:
    """One per process: its connections are pooled. Carries no cookies, no credentials and no proxy settings."""

    def __init__(self, settings: PipelineSettings, guard: AddressGuard, *, lookup: Lookup = system_lookup) -> None:
        self._settings = settings
        self._guard = guard
        self._lookup = lookup
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str) -> bytes:
        """The body, at most `fetch_max_bytes` of it. Raises `source.*` errors only."""
        try:
            async with asyncio.timeout(self._settings.fetch_total_timeout):
                return await self._follow(self._check(url))
        except TimeoutError as error:
            raise SourceTimeout("the fetch took too long") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _follow(self, target: CheckedUrl) -> bytes:
        for _ in range(self._settings.fetch_max_redirects + 1):
            async with self._get(target) as response:
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

    @contextlib.asynccontextmanager
    async def _get(self, target: CheckedUrl) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, sent as it is written. What goes wrong with the connection becomes an error of ours."""
        url = URL(target.url, encoded=True)
        if (url.raw_host, url.port) != (target.host, target.port):
            raise SourceUrlUnsafe(f"{target.host}: two parsers disagree about the host")
        _dialling.set(target)
        try:
            async with self._opened().get(url, allow_redirects=False) as response:
                yield response
        except TimeoutError as error:
            raise SourceTimeout(target.place) from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise SourceUnreachable(f"{target.place}: {type(error).__name__}") from error

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

    def _opened(self) -> aiohttp.ClientSession:
        """The session, opened on the loop of the first fetch."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_GuardedResolver(self._guard, self._lookup),
                socket_factory=self._dial,
                limit=0,  # The pool of jobs is the bound; waiting here would look like a slow origin.
            )
            timeout = aiohttp.ClientTimeout(
                total=None,
                connect=self._settings.fetch_connect_timeout,
                sock_read=self._settings.fetch_read_timeout,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                headers=HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _dial(self, info: AddrInfo) -> socket.socket:
        """Make the socket for one attempt. Last look: literal addresses never meet the resolver."""
        target = _dialling.get()
        self._guard.check_ip(str(info[4][0]), host=target.host, port=target.port)
        return socket.socket(info[0], info[1], info[2])


class _GuardedResolver(AbstractResolver):
    """Resolves once and checks every answer; what it returns is what is dialled, so a second answer can't differ."""

    def __init__(self, guard: AddressGuard, lookup: Lookup) -> None:
        self._guard = guard
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family  # Both families, always.
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._lookup, host, port)
        except socket.gaierror as error:
            raise _lookup_failure(host, error) from error
        except UnicodeError as error:
            raise SourceNotFound(f"{host} is not a name") from error
        for ip in found:
            self._guard.check_ip(ip, host=host, port=port)
        return [_resolved(host, port, ip) for ip in dict.fromkeys(found)]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _joined(target: CheckedUrl, location: str) -> str:
    try:
        return urljoin(target.url, location)
    except ValueError as error:
        raise SourceUrlUnsafe(f"{target.place}: redirects to what is not a URL") from error


def _resolved(host: str, port: int, ip: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return ResolveResult(
        hostname=host, host=ip, port=port, family=family, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST
    )


def _lookup_failure(host: str, error: socket.gaierror) -> PipelineError:
    if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:
        return SourceNotFound(f"there is no host {host}")
    return SourceUnreachable(f"{host} cannot be resolved: {error.errno}")


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
