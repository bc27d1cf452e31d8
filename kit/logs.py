"""Structured logs of every process: one JSON line for each event; URLs are logged without their query.

Callers log ids, never objects, as fields and leave queries out themselves; the redaction here is a second net.
"""

import json
import logging
import re
import sys
from typing import Any

import orjson
import structlog

_QUERY = re.compile(r"([a-z][a-z0-9+.-]*://[^\s\"'<>?#]*)[?#][^\s\"'<>]*", re.IGNORECASE)
_INVISIBLE = re.compile(
    "[\x80-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Characters that JSON need not escape but terminals and log viewers act on: C1, line breaks, bidi, zero width."""

_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/\"'<>?#]*@", re.IGNORECASE)

NOISY_LOGGERS = ("httpx2", "celery.worker.strategy")
"""Silenced at INFO: their line for each model call and each message repeats what our own events say."""


def redact(text: str) -> str:
    """Remove each URL's query, fragment and password, which are credentials."""
    return _USERINFO.sub(r"\1…@", _QUERY.sub(r"\1?…", text)) if "://" in text else text


def configure_logs(level: str, *, process: str) -> None:
    """Write structlog's and the standard library's records to stderr in one format. Call once, in a process's main.

    structlog writes directly: a line that goes through the standard library costs four times the CPU.
    """
    numeric = logging.getLevelNamesMapping()[level.upper()]
    first: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = [structlog.processors.format_exc_info, _named(process), _redacted]
    structlog.configure(
        processors=[*first, *last, structlog.processors.JSONRenderer(serializer=_to_json)],
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
                structlog.processors.JSONRenderer(serializer=lambda event, **_: _to_json(event).decode()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(numeric)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET if numeric < logging.INFO else logging.WARNING)


def _to_json(event: structlog.typing.EventDict, **_: Any) -> bytes:
    """One line of JSON without invisible characters, whatever the event holds."""
    try:
        line = orjson.dumps(event, default=repr)
    except TypeError:  # Half a surrogate pair, as in a header that is not UTF-8, or an integer of more than 64 bits.
        return json.dumps(event, default=repr).encode()
    return line if line.isascii() else _INVISIBLE.sub(_escaped, line.decode()).encode()


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
