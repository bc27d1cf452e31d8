"""Where in a text the names of the lexicon stand. Pure.

A name begins where a word begins and ends where a word ends, but for a particle or a plural; or it is the last part of
a compound ("복분자와인병"); or it is nearly what a word says ("스티로퐁"). What the things of a question are to one
another is not asked here but in `matcher`.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.lexicon import Lexicon, Name, key
from pipeline.knowledge.rulebook import Rulebook
from pipeline.types import Classification

MOST_WORDS = 5
"""The longest names have as many words."""

MOST_LETTERS = 400
"""So much of a question is read. Each word costs up to a millisecond, and jobs share their process."""

EXACT, COMPOUND, HEAD = 0.95, 0.85, 0.6
"""How sure a name is. A misspelt one is less sure than an exact one by its distance."""

LEAST_KOREAN, LEAST_LATIN = 3, 6
"""Shorter words are never taken for misspelt ones: too many words are near them."""

LETTERS_PER_MISTAKE = 7
"""One wrong letter (a jamo, in Korean) in so many is a misspelling, more is another word."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A thing named in a text. `start` and `end` enclose the name, without its particle, which is `suffix`."""

    start: int
    end: int
    key: str
    ko: str
    en: str
    place: Classification
    confidence: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start: int


def normalised(text: str) -> str:
    """Lower case, letters and digits only; commas stand for all that divides. Of a long text, its two ends."""
    text = _ends(unicodedata.normalize("NFKC", _ends(text))).lower().replace("’", "'")
    text = re.sub(r"[,.?!;:/&\n()\[\]~…·]+", " , ", text)
    return " ".join(re.sub(r"[^\w,' ]+", " ", text).split())


def _ends(text: str) -> str:
    """The first half of what is read and, because people ask last, the last one; no half words."""
    if len(text) <= MOST_LETTERS:
        return text
    half = MOST_LETTERS // 2
    return re.sub(r"\s\S*\Z", "", text[:half]) + "\n" + re.sub(r"\A\S*\s", "", text[-half:])


def blanked(text: str, pattern: re.Pattern[str]) -> str:
    """The text with what the pattern finds made blank: all other places stay where they are."""
    return pattern.sub(lambda found: " " * len(found[0]), text)


def words_of(text: str) -> list[Word]:
    return [Word(found[0], found.start()) for found in re.finditer(r"\S+", text)]


class MentionFinder:
    """Immutable; shared by all questions."""

    def __init__(self, lexicon: Lexicon, grammar: Grammar, rulebook: Rulebook) -> None:
        self._lexicon = lexicon
        self._suffixes = grammar.suffixes.all
        self._joining = frozenset((",", *grammar.joining))
        self._run_on = re.compile(grammar.run_on)
        self._heads = {
            key(name): (name, rulebook.classification(head.category, head.minor))
            for head in grammar.heads
            for name in head.names
        }
        self._spelled = {_letters(each): each for each in lexicon.keys}
        self._spellings = tuple(self._spelled)

    def find(self, text: str) -> list[Mention]:
        """Left to right, the longest at each place; they do not overlap. `text` is normalised."""
        words = words_of(text)
        found: list[Mention] = []
        at = 0
        while at < len(words):
            mention = self._at(words, at)
            if mention is None:
                at += 1
                continue
            found.append(mention)
            while at < len(words) and words[at].start < mention.end:
                at += 1
        return found

    def named(self, compared: str, start: int, end: int, suffix: str = "") -> Mention | None:
        """The mention of a name that stands there, if it is one."""
        name = self._lexicon.find(compared)
        if name is None:
            return None
        ko, en = _shown(name)
        return Mention(start, end, compared, ko, en, name.thing.classification, EXACT, suffix)

    def are_nouns(self, between: str) -> bool:
        """At most one word, and a bare one: no particle, no ending, no "and"."""
        words = between.split()
        if len(words) != 1:
            return not words
        return words[0] not in self._joining and (not _is_korean(words[0]) or len(list(self._stems(words[0]))) == 1)

    def _at(self, words: list[Word], at: int) -> Mention | None:
        for last in range(min(at + MOST_WORDS, len(words)) - 1, at - 1, -1):
            if (mention := self._exact(words[at : last + 1])) is not None:
                return mention
        return self._compound(words[at]) or self._misspelt(words[at]) or self._headed(words[at])

    def _exact(self, words: list[Word]) -> Mention | None:
        *before, last = words
        if any(word.text == "," for word in words):
            return None
        start = key("".join(word.text for word in before))
        for stem, suffix in self._stems(last.text):
            mention = self.named(start + key(stem), words[0].start, last.start + len(stem), suffix)
            if mention is not None:
                return mention
        return None

    def _compound(self, word: Word) -> Mention | None:
        """A longer end is a closer name."""
        for stem, suffix in self._stems(word.text):
            for begin in range(1, len(stem) - 1):
                mention = self.named(key(stem[begin:]), word.start + begin, word.start + len(stem), suffix)
                if mention is not None and _is_korean(stem):
                    return _less_sure(mention, COMPOUND)
        return None

    def _headed(self, word: Word) -> Mention | None:
        for stem, suffix in self._stems(word.text):
            ends = [stem] if not _is_korean(stem) else [stem[begin:] for begin in range(len(stem))]
            for end in ends:
                if (head := self._heads.get(key(end))) is not None:
                    name, place = head
                    till = word.start + len(stem)
                    return Mention(word.start, till, key(end), name, name, place, HEAD, suffix)
        return None

    def _misspelt(self, word: Word) -> Mention | None:
        for stem, suffix in self._stems(word.text):
            compared = key(stem)
            if len(compared) < (LEAST_KOREAN if _is_korean(compared) else LEAST_LATIN):
                continue
            letters = _letters(compared)
            nearest = self._nearest(letters)
            if nearest is None:
                continue
            mention = self.named(nearest, word.start, word.start + len(stem), suffix)
            if mention is not None:
                return _less_sure(mention, Levenshtein.normalized_similarity(letters, _letters(nearest)))
        return None

    def _nearest(self, letters: str) -> str | None:
        most = len(letters) // LETTERS_PER_MISTAKE
        if most == 0:
            return None
        found = process.extractOne(letters, self._spellings, scorer=Levenshtein.distance, score_cutoff=most)
        return self._spelled[found[0]] if found else None

    def _stems(self, word: str) -> Iterator[tuple[str, str]]:
        """The word, then what is left of it without an ending, the longest first."""
        yield word, ""
        for end in range(len(word) - 1, 0, -1):
            stem, suffix = word[:end], word[end:]
            if suffix in self._suffixes or self._run_on.match(suffix):
                yield stem, suffix


@lru_cache(maxsize=16_384)
def _letters(text: str) -> str:
    """Korean syllables as their jamo, so that one wrong vowel is one wrong letter."""
    return unicodedata.normalize("NFD", text)


def _is_korean(text: str) -> bool:
    return any("가" <= char <= "힣" for char in text)


def _shown(name: Name) -> tuple[str, str]:
    """Korean and English: the name that was found in its own language, the thing's first name in the other."""
    return (name.text, name.thing.en) if _is_korean(name.text) else (name.thing.ko, name.text)


def _less_sure(mention: Mention, confidence: float) -> Mention:
    return replace(mention, confidence=min(mention.confidence, confidence))
