"""Parsers of HTTP dates and of Retry-After. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def http_date(text: str) -> datetime | None:
    """Parse an HTTP date, to UTC; None if the text is not a date."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds of the server's Retry-After, never negative; None if there is none or it cannot be parsed.

    `retry-after-ms` is OpenAI's own header.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:12]) * unit
    date = http_date(headers.get("retry-after", ""))
    return None if date is None else max((date - now).total_seconds(), 0.0)
