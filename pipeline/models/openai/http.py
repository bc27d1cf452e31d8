"""One POST of JSON over aiohttp, its reply bounded, for a quarter of the SDK's CPU or less (decision 0018)."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
import httpx2
from yarl import URL

from pipeline.errors import ModelBadOutput

MAX_CONNECTIONS = 4096
"""More than the jobs of one process: waiting here for a connection would look like a slow model."""

KEEP_ALIVE = 4.0
"""Seconds for which an unused connection is kept: servers for models close theirs after 5, maybe as we send on it."""


class OneShotBody:
    """A body that is gone once it was sent: what has gone to the model need not wait for its reply in memory, too."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._left = [body]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._left:
            yield self._left.pop()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class JsonPoster:
    """To one URL, with the same headers each time. One per process, on the loop of its first call."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_timeout: float, max_bytes: int) -> None:
        """`connect_timeout` in seconds; how long the whole may take is the caller's business."""
        self.url = url
        self._target = URL(url)
        self._headers = dict(headers) | {"Accept-Encoding": "identity"}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes | OneShotBody) -> Reply:
        """Raises aiohttp's errors, and ModelBadOutput for a reply that is too long or, unasked for, compressed."""
        # Said in advance, so that a body in pieces is not sent in chunks, which some servers refuse.
        headers = {"Content-Length": str(body.length)} if isinstance(body, OneShotBody) else None
        async with self._opened().post(self._target, data=body, headers=headers, allow_redirects=False) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ModelBadOutput("the reply is compressed")
            pieces, size = [], 0
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > self._max_bytes:
                    raise ModelBadOutput("the reply is too long")
                pieces.append(piece)
            return Reply(response.status, response.headers, b"".join(pieces))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_CONNECTIONS,
                    keepalive_timeout=KEEP_ALIVE,
                    ssl=httpx2.create_ssl_context(trust_env=False),
                ),
                timeout=self._timeout,
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session
