"""What a text says about the state of a thing: text → situation tags with their places, by the grammar. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.knowledge.grammar import Grammar, Situation

KOREAN_LEAD = 3
"""So many letters before it: "안 헹궜어요"."""

KOREAN_TAIL = 8
"""So many letters behind a Korean phrase may still negate it: "묻지는 않았어요"."""

ENGLISH_LEAD = 16
"""So many letters before an English phrase may negate it: "without any grease"."""


@dataclass(frozen=True, slots=True)
class Said:
    """A tag, and where in the text it is said."""

    tag: str
    start: int
    end: int


def situations(text: str, grammar: Grammar) -> list[Said]:
    """In the order of the text, each tag once. `text` is normalised."""
    found = sorted(
        (said for situation in grammar.situations for said in _said(text, situation, grammar)),
        key=lambda said: said.start,
    )
    return list({said.tag: said for said in reversed(found)}.values())[::-1]


def _said(text: str, situation: Situation, grammar: Grammar) -> Iterator[Said]:
    for pattern, is_negated in ((situation.korean, _negated_in_korean), (situation.english, _negated_in_english)):
        for match in pattern.finditer(text):
            negated = not situation.fixed and is_negated(text, match, grammar)
            tag = situation.opposite if negated else situation.tag
            if tag is not None:
                yield Said(tag, match.start(), match.end())


def _negated_in_korean(text: str, match: re.Match[str], grammar: Grammar) -> bool:
    lead = text[max(match.start() - KOREAN_LEAD, 0) : match.start()].rpartition(",")[2]
    tail = text[match.end() : match.end() + KOREAN_TAIL].partition(",")[0]
    return re.search(grammar.negations.ko, lead + match[0] + tail) is not None


def _negated_in_english(text: str, match: re.Match[str], grammar: Grammar) -> bool:
    lead = text[max(match.start() - ENGLISH_LEAD, 0) : match.start()].rpartition(",")[2]
    return re.search(grammar.negations.en, lead.rstrip()) is not None
