"""One event is one line, whatever it holds: of structlog's loggers and of the standard library's."""

import subprocess
import sys

import orjson
import pytest

from tests.support.injections import INJECTIONS

LOGGED = """
import logging, sys
import structlog
from kit.logs import configure_logs
from tests.support.injections import INJECTIONS

configure_logs("info", process="test")
for text in [*(each.text for each in INJECTIONS), "half \\udcff pair"]:
    structlog.get_logger().info("text.seen", text=text, nested={text: [text]})
    logging.getLogger("other").warning("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        structlog.get_logger().exception("text.broke")
"""


@pytest.fixture(scope="module")
def log() -> bytes:
    """Of a process of its own: logs are set up once in each."""
    return subprocess.run([sys.executable, "-c", LOGGED], capture_output=True, check=True, timeout=60).stderr


def test_no_text_makes_a_second_line_or_is_acted_on_by_a_terminal(log: bytes) -> None:
    lines = log.decode().splitlines()
    assert len(lines) == 3 * (len(INJECTIONS) + 1)
    for line in lines:
        assert orjson.loads(line.replace("\\udcff", "?"))["process"] == "test"
        assert line.isprintable()


def test_what_was_logged_can_be_read_back(log: bytes) -> None:
    lines = [orjson.loads(line.replace("\\udcff", "?")) for line in log.decode().splitlines()]
    seen = [line["text"] for line in lines if line["event"] == "text.seen"]
    plain = [each.text for each in INJECTIONS if "://" not in each.text]
    assert [text for text in plain if text not in seen] == []
