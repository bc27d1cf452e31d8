"""That the search for uses of private names, which test_library_internals.py relies on, finds each kind of them."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.support.library_internals import reaches_in


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def use(channel):\n    return channel._planted", "_planted"),
        ("from redis._parsers import hiredis", "_parsers"),
        ("from kombu.transport.redis import _after_fork_cleanup_channel", "_after_fork_cleanup_channel"),
        ("from kombu.transport.redis import Channel\nclass A(Channel):\n    def _put(self): ...", "_put"),
        (
            "from kombu.transport.redis import Channel\nclass A:\n    def _put(self): ...\nclass B(A, Channel): ...",
            "_put",
        ),
        ("class A:\n    _size: int\n    def use(self):\n        return self._size", "_size"),
        ("class A(dict):\n    def use(self):\n        return super()._size", "_size"),
    ],
)
def test_a_new_reach_is_found(source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    assert ("planted", name) in reaches_in([importlib.import_module("planted")])


def test_what_is_our_own_is_no_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    _size: int\n    def use(self, other):\n        return self._size + other._size\n"
        "class B(A):\n    def again(self):\n        return self._size\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    assert reaches_in([importlib.import_module("planted")]) == set()
