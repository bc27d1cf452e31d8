"""Dates and pauses as HTTP headers spell them. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def http_date(text: str) -> datetime | None:
    """A date as HTTP headers spell it, always with its zone; None if it is not one."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The pause that a server asks for, in seconds, never negative; None if it asks for none that can be read.

    `retry-after-ms` is OpenAI's own.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:12]) * unit
    date = http_date(headers.get("retry-after", ""))
    return None if date is None else max((date - now).total_seconds(), 0.0)
