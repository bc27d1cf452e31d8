"""Texts that try to be more than a text (tests/data/injections.jsonl): by users, and as the words of a model."""

from dataclasses import dataclass
from pathlib import Path

import orjson

FILE = Path(__file__).parent.parent / "data" / "injections.jsonl"


@dataclass(frozen=True)
class Injection:
    id: str
    language: str
    kind: str
    text: str


def injections() -> list[Injection]:
    return [_parsed(orjson.loads(line)) for line in FILE.read_bytes().split(b"\n") if line]


def _parsed(line: dict[str, str | int]) -> Injection:
    """`times` says how often the text is repeated; without it, once."""
    text = str(line["text"]) * int(line.get("times", 1))
    return Injection(id=str(line["id"]), language=str(line["lang"]), kind=str(line["kind"]), text=text)


INJECTIONS = injections()
SHORT = [each for each in INJECTIONS if len(each.text) <= 2000]
"""Those that the API takes."""
