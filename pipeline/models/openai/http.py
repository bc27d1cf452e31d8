"""POSTs of JSON over aiohttp, for whole replies and streams alike: bounded in bytes and in time (decision 0018)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import httpx2
from yarl import URL

from pipeline.errors import ModelBadOutput, ModelTimeout, ModelUnavailable

MAX_MODEL_CONNECTIONS = 4096
"""More than the jobs of one process: waiting here for a connection would look like a slow model."""

CONNECT_SECONDS = 5.0

MODEL_KEEP_ALIVE_SECONDS = 4.0
"""How long an unused connection is kept: servers for models close theirs after 5, maybe as we send on it."""


class OneShotBody:
    """A request's body that is freed once it is sent: it need not wait in memory for the reply."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._left = [body]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._left:
            yield self._left.pop()


class Reply:
    """A reply whose head has arrived. Reading raises ModelBadOutput once the body is longer than `max_bytes`."""

    def __init__(self, response: aiohttp.ClientResponse, max_bytes: int) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._content = response.content
        self._bytes_left = max_bytes

    async def next_chunk(self) -> bytes:
        """As much of the body as has arrived; waits for some, and returns b"" at the end."""
        chunk = await self._content.readany()
        self._bytes_left -= len(chunk)
        if self._bytes_left < 0:
            raise ModelBadOutput("the reply is too long")
        return chunk

    async def read(self) -> bytes:
        """The rest of the body."""
        chunks = []
        while chunk := await self.next_chunk():
            chunks.append(chunk)
        return b"".join(chunks)


class JsonPoster:
    """Posts to one URL with the same headers each time. One per process, on the loop of its first call."""

    def __init__(self, url: str, headers: Mapping[str, str], *, total_seconds: float, max_bytes: int) -> None:
        """`total_seconds` is the limit of a whole request, up to the last byte that the caller reads."""
        self._url = URL(url)
        self._headers = dict(headers) | {"Accept-Encoding": "identity"}
        self._total_seconds = total_seconds
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def post(self, body: bytes | OneShotBody) -> AsyncIterator[Reply]:
        """Raises ModelTimeout, ModelUnavailable without a whole reply, and ModelBadOutput for a compressed one, which
        was not asked for. No redirects, no proxies, no cookies, no retries.
        """
        # Sent in advance, so that a body in pieces is not sent in chunks, which some servers refuse.
        headers = {"Content-Length": str(body.length)} if isinstance(body, OneShotBody) else None
        try:
            # aiohttp's own time limits start again with every byte, so a slow drip would pass them.
            async with (
                asyncio.timeout(self._total_seconds),
                self._opened().post(self._url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise ModelBadOutput("the reply is compressed")
                yield Reply(response, self._max_bytes)
        except TimeoutError as error:
            raise ModelTimeout("no whole reply in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ModelUnavailable(_names(error)) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_MODEL_CONNECTIONS,
                    keepalive_timeout=MODEL_KEEP_ALIVE_SECONDS,
                    ssl=httpx2.create_ssl_context(trust_env=False),
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _names(error: BaseException) -> str:
    """The classes of the exception and of its causes. Their messages may hold the URL."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return " ← ".join(type(cause).__name__ for cause in causes)
