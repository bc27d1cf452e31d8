"""Does a question list something that has no name here, beside the things that have one? Pure; the words are data.

Only a bare noun beside a bare name counts ("소주병이랑 짐볼링기"): an unknown thing passed over costs less than a good
answer that speaks of a thing nobody named.
"""

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from itertools import pairwise

from pipeline.knowledge.grammar import Listing
from pipeline.questions.mentions import COMPOUND, Mention, blanked
from pipeline.questions.situations import Said

NAME, STATE = "■", "□"
"""Stand for each letter of a whole known name, and of what else is understood. No normalised text has them."""

SEVERAL = 2
"""With so many names a list is one without words that join it. After a single name a comma may as well bring its
colour, its maker or its district: "텔레비전, 삼성".
"""


class _Part(Enum):
    """What stands between two dividers. An unknown noun that is asked about is one even behind a comma."""

    NAME = auto()
    NOUN = auto()
    ASKED_NOUN = auto()
    OTHER = auto()
    NOTHING = auto()


UNKNOWN = {_Part.NOUN, _Part.ASKED_NOUN}


def lists_unknown(text: str, mentions: Sequence[Mention], said: Sequence[Said], listing: Listing) -> bool:
    """`text` is normalised, and what the mentions were found in."""
    marked = _marked(text, (*said, *mentions), STATE)
    marked = _marked(marked, (each for each in mentions if each.confidence > COMPOUND), NAME)
    joined = [[_part(part, listing) for part in listing.joints.either.split(each)] for each in marked.split(",")]
    parts = [part for each in joined for part in each if part is not _Part.NOTHING]
    if _Part.OTHER not in parts and parts.count(_Part.NAME) >= SEVERAL:
        return not UNKNOWN.isdisjoint(parts)
    return _beside_name(parts, {_Part.ASKED_NOUN}) or any(_beside_name(each, UNKNOWN) for each in joined)


def _marked(text: str, places: Iterable[Mention | Said], mark: str) -> str:
    for each in places:
        text = text[: each.start] + mark * (each.end - each.start) + text[each.end :]
    return text


def _beside_name(parts: Sequence[_Part], nouns: set[_Part]) -> bool:
    return any(_Part.NAME in beside and not nouns.isdisjoint(beside) for beside in pairwise(parts))


def _part(text: str, listing: Listing) -> _Part:
    words = blanked(text, listing.fillers.either).split()
    if NAME in text:
        return _Part.NAME if all(NAME in word or STATE in word for word in words) else _Part.OTHER
    if not words:
        return _Part.NOTHING
    if not listing.noun.either.fullmatch(" ".join(words)) or any(map(listing.no_things.either.fullmatch, words)):
        return _Part.OTHER
    return _Part.ASKED_NOUN if listing.asked.either.search(text) else _Part.NOUN
