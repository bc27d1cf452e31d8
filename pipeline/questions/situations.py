"""Situation tags: finds the states that a text mentions, with their positions, by the grammar. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.knowledge.grammar import Grammar, SituationPatterns

MAX_KOREAN_LEAD_CHARS = 3
"""A negation up to this many characters before a Korean phrase negates it: "안 헹궜어요"."""

MAX_KOREAN_TAIL_CHARS = 8
"""A negation up to this many characters after a Korean phrase negates it: "묻지는 않았어요"."""

MAX_ENGLISH_LEAD_CHARS = 16
"""A negation up to this many characters before an English phrase negates it: "without any grease"."""


@dataclass(frozen=True, slots=True)
class TagMention:
    """A situation tag, and the position (`end` exclusive) of the phrase for it."""

    tag: str
    start: int
    end: int


def find_situation_tags(text: str, grammar: Grammar) -> list[TagMention]:
    """In text order, each tag once, at its first position. `text` comes from `normalise`."""
    found = sorted(
        (mention for patterns in grammar.situations for mention in _tag_mentions(text, patterns, grammar)),
        key=lambda mention: mention.start,
    )
    return list({mention.tag: mention for mention in reversed(found)}.values())[::-1]


def _tag_mentions(text: str, patterns: SituationPatterns, grammar: Grammar) -> Iterator[TagMention]:
    for pattern, is_negated in ((patterns.korean, _negated_in_korean), (patterns.english, _negated_in_english)):
        for match in pattern.finditer(text):
            negated = not patterns.fixed and is_negated(text, match, grammar)
            tag = patterns.opposite if negated else patterns.tag
            if tag is not None:
                yield TagMention(tag, match.start(), match.end())


def _negated_in_korean(text: str, match: re.Match[str], grammar: Grammar) -> bool:
    lead = text[max(match.start() - MAX_KOREAN_LEAD_CHARS, 0) : match.start()].rpartition(",")[2]
    tail = text[match.end() : match.end() + MAX_KOREAN_TAIL_CHARS].partition(",")[0]
    return re.search(grammar.negations.ko, lead + match[0] + tail) is not None


def _negated_in_english(text: str, match: re.Match[str], grammar: Grammar) -> bool:
    lead = text[max(match.start() - MAX_ENGLISH_LEAD_CHARS, 0) : match.start()].rpartition(",")[2]
    return re.search(grammar.negations.en, lead.rstrip()) is not None
