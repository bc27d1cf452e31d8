"""Mentions: finds lexicon names in a text, with their positions. Pure.

A name matches whole words, apart from a particle or a plural ending; or the last part of a compound ("복분자와인병");
or a misspelt word ("스티로퐁"). How the things of a question relate to one another is decided in `reader.py`.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.lexicon import Lexicon, Name, name_key
from pipeline.knowledge.rulebook import Rulebook
from pipeline.types import Classification

MAX_NAME_WORDS = 5
"""The longest names in the lexicon have this many words."""

MAX_QUESTION_CHARS = 400
"""Longer questions are cut. Each word costs up to a millisecond, and jobs share their process."""

EXACT_CONFIDENCE, COMPOUND_CONFIDENCE, HEAD_NOUN_CONFIDENCE = 0.95, 0.85, 0.6
"""Confidence by kind of match. A misspelt name has its similarity to the correct spelling, at most EXACT_CONFIDENCE."""

MIN_FUZZY_KOREAN_CHARS, MIN_FUZZY_LATIN_CHARS = 3, 6
"""Shorter words are never treated as misspelt: too many other words are similar."""

CHARS_PER_TYPO = 7
"""One wrong letter (in Korean, a jamo) for each 7 letters is a typo; more make it another word."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A thing named in a text. `start` and `end` (exclusive) enclose the name; the particle after it is `suffix`.

    `key` is the `name_key` of the name found, `ko` and `en` are its display names.
    """

    start: int
    end: int
    key: str
    ko: str
    en: str
    classification: Classification
    confidence: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start: int


def normalise(text: str) -> str:
    """NFKC, lower case, letters and digits only; a comma replaces all other punctuation that separates.

    A long text is cut to its two ends, MAX_QUESTION_CHARS in all.
    """
    text = _ends(unicodedata.normalize("NFKC", _ends(text))).lower().replace("’", "'")
    text = re.sub(r"[,.?!;:/&\n()\[\]~…·]+", " , ", text)
    return " ".join(re.sub(r"[^\w,' ]+", " ", text).split())


def _ends(text: str) -> str:
    """A long text cut to its beginning and, because questions come last, its end; at whole words."""
    if len(text) <= MAX_QUESTION_CHARS:
        return text
    half = MAX_QUESTION_CHARS // 2
    return re.sub(r"\s\S*\Z", "", text[:half]) + "\n" + re.sub(r"\A\S*\s", "", text[-half:])


def blank_out(text: str, pattern: re.Pattern[str]) -> str:
    """The text with every match replaced by as many spaces, so that positions stay valid."""
    return pattern.sub(lambda found: " " * len(found[0]), text)


def split_words(text: str) -> list[Word]:
    return [Word(found[0], found.start()) for found in re.finditer(r"\S+", text)]


class MentionFinder:
    """Immutable; shared by all questions."""

    def __init__(self, lexicon: Lexicon, grammar: Grammar, rulebook: Rulebook) -> None:
        self._lexicon = lexicon
        self._suffixes = grammar.suffixes.all
        self._joining = frozenset((",", *grammar.joining))
        self._run_on = re.compile(grammar.run_on)
        self._heads = {
            name_key(name): (name, rulebook.classification(head.category, head.minor))
            for head in grammar.heads
            for name in head.names
        }
        self._spelled = {_letters(each): each for each in lexicon.keys}
        self._spellings = tuple(self._spelled)

    def find(self, text: str) -> list[Mention]:
        """Left to right, the longest match at each word, without overlaps. `text` comes from `normalise`."""
        words = split_words(text)
        found: list[Mention] = []
        at = 0
        while at < len(words):
            mention = self._longest_at(words, at)
            if mention is None:
                at += 1
                continue
            found.append(mention)
            while at < len(words) and words[at].start < mention.end:
                at += 1
        return found

    def find_name(self, key: str, start: int, end: int, suffix: str = "") -> Mention | None:
        """A mention at this position if the lexicon has a name with this key."""
        name = self._lexicon.find(key)
        if name is None:
            return None
        ko, en = _display_names(name)
        return Mention(start, end, key, ko, en, name.thing.classification, EXACT_CONFIDENCE, suffix)

    def is_bare_noun(self, between: str) -> bool:
        """Whether the text between two names is empty or one bare word: no particle, no ending, no "and"."""
        words = between.split()
        if len(words) != 1:
            return not words
        return words[0] not in self._joining and (not _is_korean(words[0]) or len(list(self._stems(words[0]))) == 1)

    def _longest_at(self, words: list[Word], at: int) -> Mention | None:
        for last in range(min(at + MAX_NAME_WORDS, len(words)) - 1, at - 1, -1):
            if (mention := self._exact(words[at : last + 1])) is not None:
                return mention
        return self._compound(words[at]) or self._misspelt(words[at]) or self._head_noun(words[at])

    def _exact(self, words: list[Word]) -> Mention | None:
        *before, last = words
        if any(word.text == "," for word in words):
            return None
        start = name_key("".join(word.text for word in before))
        for stem, suffix in self._stems(last.text):
            mention = self.find_name(start + name_key(stem), words[0].start, last.start + len(stem), suffix)
            if mention is not None:
                return mention
        return None

    def _compound(self, word: Word) -> Mention | None:
        """The name that is the longest end of a Korean compound."""
        for stem, suffix in self._stems(word.text):
            for begin in range(1, len(stem) - 1):
                mention = self.find_name(name_key(stem[begin:]), word.start + begin, word.start + len(stem), suffix)
                if mention is not None and _is_korean(stem):
                    return _capped(mention, COMPOUND_CONFIDENCE)
        return None

    def _head_noun(self, word: Word) -> Mention | None:
        for stem, suffix in self._stems(word.text):
            ends = [stem] if not _is_korean(stem) else [stem[begin:] for begin in range(len(stem))]
            for end in ends:
                if (head := self._heads.get(name_key(end))) is not None:
                    name, classification = head
                    till = word.start + len(stem)
                    return Mention(
                        word.start, till, name_key(end), name, name, classification, HEAD_NOUN_CONFIDENCE, suffix
                    )
        return None

    def _misspelt(self, word: Word) -> Mention | None:
        for stem, suffix in self._stems(word.text):
            key = name_key(stem)
            if len(key) < (MIN_FUZZY_KOREAN_CHARS if _is_korean(key) else MIN_FUZZY_LATIN_CHARS):
                continue
            letters = _letters(key)
            nearest = self._nearest(letters)
            if nearest is None:
                continue
            mention = self.find_name(nearest, word.start, word.start + len(stem), suffix)
            if mention is not None:
                return _capped(mention, Levenshtein.normalized_similarity(letters, _letters(nearest)))
        return None

    def _nearest(self, letters: str) -> str | None:
        max_typos = len(letters) // CHARS_PER_TYPO
        if max_typos == 0:
            return None
        found = process.extractOne(letters, self._spellings, scorer=Levenshtein.distance, score_cutoff=max_typos)
        return self._spelled[found[0]] if found else None

    def _stems(self, word: str) -> Iterator[tuple[str, str]]:
        """(stem, suffix): the whole word, then the word without each possible ending, longest stem first."""
        yield word, ""
        for end in range(len(word) - 1, 0, -1):
            stem, suffix = word[:end], word[end:]
            if suffix in self._suffixes or self._run_on.match(suffix):
                yield stem, suffix


@lru_cache(maxsize=16_384)
def _letters(text: str) -> str:
    """Korean syllables split into jamo, so that one wrong vowel is one wrong letter."""
    return unicodedata.normalize("NFD", text)


def _is_korean(text: str) -> bool:
    return any("가" <= char <= "힣" for char in text)


def _display_names(name: Name) -> tuple[str, str]:
    """Display names in Korean and English: the matched spelling in its language, the first name in the other."""
    return (name.text, name.thing.en) if _is_korean(name.text) else (name.thing.ko, name.text)


def _capped(mention: Mention, confidence: float) -> Mention:
    return replace(mention, confidence=min(mention.confidence, confidence))
