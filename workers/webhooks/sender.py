"""One webhook on the wire: signed by Standard Webhooks, sent to a checked address, judged by its status alone.

The whole callback URL is a credential (many receivers have theirs in the path): only its host is ever named.
"""

import asyncio
import base64
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from jobs.deliveries import AttemptError
from kit.address import AddressGuard
from kit.dates import retry_after
from kit.http import GuardedClient, Lookup, system_lookup
from pipeline.errors import SourceNotFound, SourceTimeout, SourceUnreachable, SourceUrlUnsafe
from pipeline.settings import PipelineSettings

TIMEOUT = 15.0
"""Seconds for one attempt, from the look-up of the name to the last header of the response."""

HEADERS = {"User-Agent": "Bunri/0.1 (webhook)", "Accept-Encoding": "identity"}

BUSY = frozenset({429, 503})
"""Statuses whose Retry-After is heeded."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a status, or why there is none. `retry_after` is the receiver's wish, in seconds."""

    status: int | None = None
    error: AttemptError | None = None
    retry_after: float | None = None


def signed_headers(keys: Sequence[bytes], message_id: str, body: bytes, at: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks. One signature a key, so that a receiver may hold any of them."""
    timestamp = str(int(at.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


class WebhookSender:
    """One per process. Every attempt has a connection of its own: one that was kept may have died meanwhile."""

    def __init__(self, guard: AddressGuard, keys: Sequence[bytes], *, lookup: Lookup = system_lookup) -> None:
        self._guard = guard
        self._keys = keys
        self._client = GuardedClient(
            guard,
            connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT,
            headers=HEADERS,
            keep_alive=False,
            lookup=lookup,
        )

    @classmethod
    def of(cls, settings: PipelineSettings, keys: Sequence[bytes]) -> Self:
        """Calls the addresses that photos may be fetched from."""
        return cls(AddressGuard(settings.fetch_allow, settings.fetch_ports), keys)

    async def send(self, url: str, message_id: str, body: bytes, at: datetime) -> Reply:
        """POST the body, signed at this time. The response's body is not read; a redirect is not followed."""
        headers = {"Content-Type": "application/json"} | signed_headers(self._keys, message_id, body, at)
        try:
            async with asyncio.timeout(TIMEOUT):
                target = self._guard.check_url(url)
                async with self._client.request("POST", target, body=body, headers=headers) as response:
                    return Reply(response.status, retry_after=_wish(response.status, response.headers, at))
        except SourceUrlUnsafe:
            return Reply(error=AttemptError.UNSAFE_ADDRESS)
        except (SourceTimeout, TimeoutError):
            return Reply(error=AttemptError.TIMEOUT)
        except (SourceUnreachable, SourceNotFound):
            return Reply(error=AttemptError.UNREACHABLE)

    async def close(self) -> None:
        await self._client.close()


def _wish(status: int, headers: Mapping[str, str], now: datetime) -> float | None:
    return retry_after(headers, now) if status in BUSY else None
