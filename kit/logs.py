"""Structured logs of every process: one JSON line an event, and no URL with its query.

The other rule, ids and not objects as fields, is kept by the callers; the redaction here is the net below them.
"""

import json
import logging
import re
import sys
from typing import Any

import orjson
import structlog

_QUERY = re.compile(r"([a-z][a-z0-9+.-]*://[^\s\"'<>?#]*)[?#][^\s\"'<>]*", re.IGNORECASE)
_UNSEEN = re.compile(
    "[\x80-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""What JSON lets stand, and a terminal or a viewer of lines acts on: C1 escapes, line breaks, bidi and zero width."""

_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/\"'<>?#]*@", re.IGNORECASE)


TOLD_ANYWAY = ("httpx2", "celery.worker.strategy")
"""Loggers whose line for each model call and each message says at INFO what our own events say."""


def redact(text: str) -> str:
    """The text with each URL's query, fragment and password taken out: they are credentials."""
    return _USERINFO.sub(r"\1…@", _QUERY.sub(r"\1?…", text)) if "://" in text else text


def configure_logs(level: str, *, process: str) -> None:
    """Send structlog's and the standard library's records to stderr, in one form. Call once, in a process's main.

    structlog's go there directly: by way of the standard library a line costs four times the CPU.
    """
    numeric = logging.getLevelNamesMapping()[level.upper()]
    first: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = [structlog.processors.format_exc_info, _named(process), _redacted]
    structlog.configure(
        processors=[*first, *last, structlog.processors.JSONRenderer(serializer=_dumped)],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=first,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *last,
                structlog.processors.JSONRenderer(serializer=lambda event, **_: _dumped(event).decode()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(numeric)
    for name in TOLD_ANYWAY:
        logging.getLogger(name).setLevel(logging.NOTSET if numeric < logging.INFO else logging.WARNING)


def _dumped(event: structlog.typing.EventDict, **_: Any) -> bytes:
    """One line of JSON, with nothing in it that is not shown as it stands, whatever the event holds."""
    try:
        line = orjson.dumps(event, default=repr)
    except TypeError:  # Half a surrogate pair, as from a header that is no UTF-8, or a number of more than 64 bits.
        return json.dumps(event, default=repr).encode()
    return line if line.isascii() else _UNSEEN.sub(_escaped, line.decode()).encode()


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _named(process: str) -> structlog.typing.Processor:
    def add(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["process"] = process
        return event

    return add


def _redacted(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event
