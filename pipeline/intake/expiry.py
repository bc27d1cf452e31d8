"""Expiry of signed URLs, read from the URL itself and from the store's error reply. Pure: the time is an argument.

`docs/intake.md` has the table of stores and their formats.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import orjson

from kit.dates import http_date

SKEW = timedelta(seconds=5)
"""Tolerated difference between our clock and the store's."""

EXPIRED_STATUSES = frozenset({400, 401, 403, 404, 410})
"""Statuses of stores' replies to an expired URL."""

Query = Mapping[str, str]

_EXPIRED_CODES = re.compile(r"<Code>\s*(ExpiredToken|ExpiredRequest|TokenExpired)\s*</Code>", re.IGNORECASE)
_EXPIRED_TEXTS = re.compile(
    r"<Message>\s*Request has expired|URL signature expired|Request signature expired at", re.IGNORECASE
)
_AZURE = re.compile(r"Signature not valid in the specified time frame: Start \[[^\]]*\] - Expiry \[([^\]]+)\]")
_EPOCH = re.compile(r"[0-9]{10}", re.ASCII)
_HEX_EPOCH = re.compile(r"[0-9a-f]{8}", re.ASCII | re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


def expires_at(url: str) -> datetime | None:
    """When the URL's signature expires; None if the URL has no expiry in a known format."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    query = {name.lower(): value for name, value in parse_qsl(parts.query)}
    host = parts.hostname or ""
    found = [end for read in _READERS if (end := read(query, host)) is not None]
    return min(found, default=None)


def has_expired(url: str, now: datetime) -> bool:
    end = expires_at(url)
    return end is not None and now - SKEW > end  # `end + SKEW` may overflow.


def is_expired_answer(url: str, status: int, body: bytes, now: datetime) -> bool:
    """Whether an error reply means "expired". `body`: its first few kilobytes."""
    if status not in EXPIRED_STATUSES:
        return False
    return has_expired(url, now) or _says_expired(body.decode("utf-8", "replace"), now)


def _says_expired(text: str, now: datetime) -> bool:
    if _EXPIRED_CODES.search(text) or _EXPIRED_TEXTS.search(text):
        return True
    azure = _AZURE.search(text)
    if azure is None:
        return False
    # The same sentence stands for a signature that is not valid yet.
    end = http_date(azure[1])
    return end is not None and now > end


def _signed_v4(vendor: str) -> Callable[[Query, str], datetime | None]:
    """AWS's scheme and its copies: a start in ISO 8601 basic format and a lifetime in seconds."""

    def read(query: Query, _host: str) -> datetime | None:
        start = _basic_date(query.get(f"x-{vendor}-date", ""))
        lasts = query.get(f"x-{vendor}-expires", "")
        if start is None or not _SECONDS.fullmatch(lasts):
            return None
        return _later(start, int(lasts))

    return read


def _epoch(query: Query, _host: str) -> datetime | None:
    """`Expires=`: S3 and GCS v2, OSS v1, CloudFront's canned policy, most home-made ones; OSS v2 has its own name."""
    return _from_epoch(query.get("expires", "")) or _from_epoch(query.get("x-oss-expires", ""))


def _azure(query: Query, _host: str) -> datetime | None:
    if "sig" not in query:
        return None
    return _iso_date(query.get("se", ""))


def _tencent(query: Query, _host: str) -> datetime | None:
    """COS: `q-sign-time=start;end`."""
    return _from_epoch(query.get("q-sign-time", "").partition(";")[2])


def _cloudfront(query: Query, _host: str) -> datetime | None:
    """CloudFront's custom policy: JSON in base64, with `-_~` for `+=/`."""
    if "key-pair-id" not in query or "policy" not in query:
        return None
    try:
        policy = orjson.loads(b64decode(query["policy"].translate(str.maketrans("-_~", "+=/"))))
        end = min(s["Condition"]["DateLessThan"]["AWS:EpochTime"] for s in policy["Statement"])
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None
    return _from_epoch(str(end))


def _hex_epoch(name: str, *hosts: str) -> Callable[[Query, str], datetime | None]:
    """An expiry in hex epoch seconds. The parameter's name is short, so it counts only on its vendor's hosts."""

    def read(query: Query, host: str) -> datetime | None:
        value = query.get(name, "")
        if not host.endswith(hosts) or not _HEX_EPOCH.fullmatch(value):
            return None
        return datetime.fromtimestamp(int(value, 16), UTC)

    return read


_READERS: tuple[Callable[[Query, str], datetime | None], ...] = (
    _signed_v4("amz"),
    _signed_v4("goog"),
    _signed_v4("oss"),
    _epoch,
    _azure,
    _tencent,
    _cloudfront,
    _hex_epoch("oe", ".fbcdn.net", ".cdninstagram.com"),
    _hex_epoch("ex", ".discordapp.com", ".discordapp.net"),
)


def _from_epoch(text: str) -> datetime | None:
    return datetime.fromtimestamp(int(text), UTC) if _EPOCH.fullmatch(text) else None


def _basic_date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _iso_date(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _later(start: datetime, seconds: int) -> datetime | None:
    try:
        return start + timedelta(seconds=seconds)
    except OverflowError:
        return None
