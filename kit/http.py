"""Guarded HTTP to servers that users chose, for image fetches and webhooks: each address is checked when it is dialled.

Raises `kit.errors` only. A URL's query may hold credentials: details hold host, path and kind of failure.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kit.address import AddressGuard, CheckedUrl
from kit.errors import ConnectTimeout, HostNotFound, HttpError, ReadTimeout, Unreachable, UnsafeUrl

MAX_LOOKUPS = 32
"""Concurrent DNS lookups, a thread each. uvloop's own getaddrinfo has two slots: two dead name servers would stop all
requests.
"""

Lookup = Callable[[str, int], list[str]]
"""DNS lookup: host and port → IP addresses. Blocks; raises socket.gaierror."""

Response = aiohttp.ClientResponse

AddrInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]

_dialling: ContextVar[CheckedUrl] = ContextVar("dialling")


def system_lookup(host: str, port: int) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class GuardedClient:
    """HTTP client with a connection pool: one per process and purpose.

    Sends no cookies and no credentials, ignores proxy variables and follows no redirect. `connect_seconds` bounds
    lookup, TCP and TLS together; `read_seconds` the silence between two reads. A limit for the whole request is the
    caller's, and so is one for concurrent requests.
    """

    def __init__(
        self,
        guard: AddressGuard,
        *,
        connect_seconds: float,
        read_seconds: float,
        headers: Mapping[str, str],
        keep_alive: bool = True,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._guard = guard
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_read=read_seconds)
        self._headers = headers
        self._keep_alive = keep_alive
        self._lookup = lookup
        self._session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, target: CheckedUrl, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Response]:
        """Send one request, the URL to the letter. The response's body is read only as far as the block reads it.

        Raises the leaves of `kit.errors`, also for failures while the block reads.
        """
        url = URL(target.url, encoded=True)
        if (url.raw_host, url.port) != (target.host, target.port):
            raise UnsafeUrl(f"{target.host}: two parsers disagree about the host")
        _dialling.set(target)
        try:
            async with self._open_session().request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                yield response
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectTimeout(target.log_url) from error
        except TimeoutError as error:
            raise ReadTimeout(target.log_url) from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise Unreachable(f"{target.log_url}: {type(error).__name__}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        """The session, opened on the loop of the first request."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_GuardedResolver(self._guard, self._lookup),
                socket_factory=self._dial,
                limit=0,  # Callers bound their requests: waiting here for a connection would look like a slow server.
                force_close=not self._keep_alive,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _dial(self, info: AddrInfo) -> socket.socket:
        """Create the socket of one attempt. The last check: the resolver never sees IP addresses in URLs."""
        target = _dialling.get()
        self._guard.check_ip(str(info[4][0]), host=target.host, port=target.port)
        return socket.socket(info[0], info[1], info[2])


async def read_start(response: Response, max_bytes: int, seconds: float) -> bytes:
    """The body's first `max_bytes`. Best effort: after an error or `seconds`, return what has arrived."""
    body = bytearray()
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(seconds):
            while len(body) < max_bytes and (chunk := await response.content.read(max_bytes)):
                body += chunk
    return bytes(body[:max_bytes])


class _GuardedResolver(AbstractResolver):
    """Resolves once and checks every address. aiohttp dials the addresses it returns: no second lookup can differ."""

    def __init__(self, guard: AddressGuard, lookup: Lookup) -> None:
        self._guard = guard
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family  # Both families, always.
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._lookup, host, port)
        except socket.gaierror as error:
            raise _lookup_error(host, error) from error
        except UnicodeError as error:
            raise HostNotFound(f"{host} is not a name") from error
        for ip in found:
            self._guard.check_ip(ip, host=host, port=port)
        return [_resolved(host, port, ip) for ip in dict.fromkeys(found)]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _resolved(host: str, port: int, ip: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return ResolveResult(
        hostname=host, host=ip, port=port, family=family, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST
    )


def _lookup_error(host: str, error: socket.gaierror) -> HttpError:
    if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:
        return HostNotFound(f"there is no host {host}")
    return Unreachable(f"{host} cannot be resolved: {error.errno}")
