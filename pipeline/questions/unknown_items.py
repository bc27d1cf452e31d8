"""Unknown items: detects a thing without a lexicon name in a list beside known ones. Pure; the patterns are data.

Only a bare noun next to a bare name counts ("소주병이랑 짐볼링기"): a missed unknown thing costs less than an answer
that mentions a thing which the question did not.
"""

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from itertools import pairwise

from pipeline.knowledge.grammar import ListPatterns
from pipeline.questions.mentions import COMPOUND_CONFIDENCE, Mention, blank_out
from pipeline.questions.situations import TagMention

NAME, STATE = "■", "□"
"""Markers that replace each letter of a known name (NAME) or other recognised text (STATE). Not in normalised text."""

MIN_NAMES_OF_LIST = 2
"""With this many names, commas alone make a list. After a single name a comma may also introduce its colour, its
maker or its district: "텔레비전, 삼성".
"""


class _SegmentKind(Enum):
    """Kind of the text between two separators. An ASKED_NOUN is unknown even if only a comma separates it."""

    NAME = auto()
    NOUN = auto()
    ASKED_NOUN = auto()
    OTHER = auto()
    NOTHING = auto()


UNKNOWN = {_SegmentKind.NOUN, _SegmentKind.ASKED_NOUN}


def lists_unknown(text: str, mentions: Sequence[Mention], tags: Sequence[TagMention], listing: ListPatterns) -> bool:
    """`text` is the normalised text that the mentions' positions refer to."""
    marked = _marked(text, (*tags, *mentions), STATE)
    marked = _marked(marked, (each for each in mentions if each.confidence > COMPOUND_CONFIDENCE), NAME)
    joined = [[_kind(part, listing) for part in listing.joints.either.split(each)] for each in marked.split(",")]
    kinds = [kind for each in joined for kind in each if kind is not _SegmentKind.NOTHING]
    if _SegmentKind.OTHER not in kinds and kinds.count(_SegmentKind.NAME) >= MIN_NAMES_OF_LIST:
        return not UNKNOWN.isdisjoint(kinds)
    return _beside_name(kinds, {_SegmentKind.ASKED_NOUN}) or any(_beside_name(each, UNKNOWN) for each in joined)


def _marked(text: str, mentions: Iterable[Mention | TagMention], mark: str) -> str:
    for each in mentions:
        text = text[: each.start] + mark * (each.end - each.start) + text[each.end :]
    return text


def _beside_name(kinds: Sequence[_SegmentKind], nouns: set[_SegmentKind]) -> bool:
    return any(_SegmentKind.NAME in pair and not nouns.isdisjoint(pair) for pair in pairwise(kinds))


def _kind(text: str, listing: ListPatterns) -> _SegmentKind:
    words = blank_out(text, listing.fillers.either).split()
    if NAME in text:
        return _SegmentKind.NAME if all(NAME in word or STATE in word for word in words) else _SegmentKind.OTHER
    if not words:
        return _SegmentKind.NOTHING
    if not listing.noun.either.fullmatch(" ".join(words)) or any(map(listing.no_things.either.fullmatch, words)):
        return _SegmentKind.OTHER
    return _SegmentKind.ASKED_NOUN if listing.asked.either.search(text) else _SegmentKind.NOUN
