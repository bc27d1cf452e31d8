"""Sends one webhook: signed by Standard Webhooks, posted to a checked address; the status alone is the result.

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
from kit.errors import ConnectTimeout, HostNotFound, HttpError, ReadTimeout, Unreachable, UnsafeUrl
from kit.http import GuardedClient, Lookup, system_lookup
from pipeline.settings import PipelineSettings

ATTEMPT_SECONDS = 15.0
"""Limit for one attempt, from the lookup of the name to the last header of the response."""

HEADERS = {"User-Agent": "Bunri/0.1 (webhook)", "Accept-Encoding": "identity"}

RETRY_AFTER_STATUSES = frozenset({429, 503})
"""Retry-After counts with these statuses only."""

ATTEMPT_ERRORS: Mapping[type[HttpError], AttemptError] = {
    UnsafeUrl: AttemptError.UNSAFE_ADDRESS,
    HostNotFound: AttemptError.UNREACHABLE,
    ConnectTimeout: AttemptError.TIMEOUT,
    ReadTimeout: AttemptError.TIMEOUT,
    Unreachable: AttemptError.UNREACHABLE,
}
"""Guarded HTTP's errors as a delivery's record names them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Result of an attempt: a status, or why there is none. `retry_after`: seconds, as the receiver asked."""

    status: int | None = None
    error: AttemptError | None = None
    retry_after: float | None = None


def signed_headers(keys: Sequence[bytes], message_id: str, body: bytes, at: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks. One signature for each key: a receiver needs only one of the keys."""
    timestamp = str(int(at.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


class WebhookSender:
    """One per process. Opens a connection for each attempt: a pooled one may have died in the meantime."""

    def __init__(self, guard: AddressGuard, keys: Sequence[bytes], *, lookup: Lookup = system_lookup) -> None:
        self._guard = guard
        self._keys = keys
        self._client = GuardedClient(
            guard,
            connect_seconds=ATTEMPT_SECONDS,
            read_seconds=ATTEMPT_SECONDS,
            headers=HEADERS,
            keep_alive=False,
            lookup=lookup,
        )

    @classmethod
    def from_settings(cls, settings: PipelineSettings, keys: Sequence[bytes]) -> Self:
        """A sender with the address rules of photo fetches: FETCH_ALLOW and PIPELINE_FETCH_PORTS."""
        return cls(AddressGuard(settings.fetch_allow, settings.fetch_ports), keys)

    async def send(self, url: str, message_id: str, body: bytes, at: datetime) -> Reply:
        """POST the body, signed with the time `at`. Raises nothing for what the receiver does; follows no redirect.

        The response's body is not read.
        """
        headers = {"Content-Type": "application/json"} | signed_headers(self._keys, message_id, body, at)
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                target = self._guard.check_url(url)
                async with self._client.request("POST", target, body=body, headers=headers) as response:
                    return Reply(response.status, retry_after=_retry_after(response.status, response.headers, at))
        except TimeoutError:
            return Reply(error=AttemptError.TIMEOUT)
        except HttpError as error:
            return Reply(error=ATTEMPT_ERRORS[type(error)])

    async def close(self) -> None:
        await self._client.close()


def _retry_after(status: int, headers: Mapping[str, str], now: datetime) -> float | None:
    return retry_after(headers, now) if status in RETRY_AFTER_STATUSES else None
