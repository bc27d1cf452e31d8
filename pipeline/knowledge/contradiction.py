"""Contradictions: finds text that the rule of its category forbids. Patterns: resources/contradictions.yaml. Pure."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field

from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.knowledge.yaml_file import duplicates, read_yaml
from pipeline.types import Locale, Strict

FILE = "contradictions.yaml"

MAX_NEGATION_DISTANCE_CHARS = 80
"""A negation up to this many characters after a claim negates it."""


class PatternsByLocale(Strict):
    """Regular expressions for lower-case text; only those of the text's locale are used. Empty ones match nothing."""

    ko: tuple[str, ...] = ()
    en: tuple[str, ...] = ()

    def find(self, text: str, locale: Locale, start: int = 0) -> re.Match[str] | None:
        return self._patterns[locale].search(text, start)

    @cached_property
    def _patterns(self) -> dict[Locale, re.Pattern[str]]:
        return {
            locale: re.compile("|".join(f"(?:{each})" for each in words) or "(?!)")
            for locale, words in ((Locale.KO, self.ko), (Locale.EN, self.en))
        }


class ClauseBoundaries(Strict):
    """One regular expression for each language; a clause ends where it matches."""

    ko: str
    en: str

    def split(self, sentence: str, locale: Locale) -> Iterator[str]:
        """The clauses in order; joined they are the sentence. A boundary belongs to the clause before it."""
        start = 0
        for end in re.finditer(self.ko if locale is Locale.KO else self.en, sentence):
            yield sentence[start : end.end()]
            start = end.end()
        yield sentence[start:]


class ItemPart(PatternsByLocale):
    """A part of an item (a cap, a label) that may go elsewhere; in the categories of `own` it is the item itself."""

    own: tuple[str, ...]


class CodedPatterns(PatternsByLocale):
    """`id` is the contradiction's code."""

    id: str


class WasteBin(CodedPatterns):
    """A bin, and the categories that it takes."""

    takes: tuple[str, ...]


class AllowedBin(PatternsByLocale):
    """An exception: these words allow this bin for these categories."""

    bin: str
    categories: tuple[str, ...]


class FalseClaim(CodedPatterns):
    """A statement that is wrong for these categories; with `of_parts` also in a clause about a part."""

    of_parts: bool = False
    categories: tuple[str, ...] = Field(min_length=1)


class ContradictionFile(Strict):
    clauses: ClauseBoundaries
    sentences: str
    disposal: PatternsByLocale
    forbidden: PatternsByLocale
    parts: tuple[ItemPart, ...]
    exceptions: PatternsByLocale
    bins: tuple[WasteBin, ...]
    allowed: tuple[AllowedBin, ...]
    claims: tuple[FalseClaim, ...]


class Contradictions:
    """Immutable. A code is the id of a bin that does not take the category, or of a claim that is false for it."""

    def __init__(self, file: ContradictionFile) -> None:
        self._file = file

    @classmethod
    def load(cls, resources: Path, rulebook: Rulebook) -> "Contradictions":
        """Raises ValueError with every mistake: an unknown category or bin, a duplicate code, an invalid pattern."""
        mistakes: list[str] = []
        file = read_yaml(resources / FILE, ContradictionFile, mistakes)
        if file is not None:
            mistakes += _mistakes(file, rulebook)
        if mistakes or file is None:
            raise ValueError(f"Mistakes in {resources}:\n" + "\n".join(mistakes))
        return cls(file)

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(each.id for each in (*self._file.bins, *self._file.claims))

    def find(self, texts: Iterable[str], category: str, locale: Locale) -> tuple[str, ...]:
        """The codes of all contradictions in texts about an item of this middle category, each once.

        Always empty for 미분류: without a known category no text can contradict its rule.
        """
        if category == UNCLASSIFIED:
            return ()
        found = [
            code
            for text in texts
            for sentence in re.split(self._file.sentences, text.lower())
            for code in self._in_sentence(sentence, category, locale)
        ]
        return tuple(dict.fromkeys(found))

    def _in_sentence(self, sentence: str, category: str, locale: Locale) -> Iterator[str]:
        """Stops at an exception ("깨졌다면 …"): the rest of the sentence describes another case."""
        exception = self._file.exceptions.find(sentence, locale)
        end = 0
        for clause in self._file.clauses.split(sentence, locale):
            end += len(clause)
            if exception and exception.end() <= end:
                return
            is_about_part = self._is_about_part(clause, category, locale)
            if not is_about_part:
                yield from self._wrong_bins(clause, category, locale)
            claims = [each for each in self._file.claims if each.of_parts or not is_about_part]
            yield from self._wrong_claims(
                claims, clause, sentence[end : end + MAX_NEGATION_DISTANCE_CHARS], category, locale
            )

    def _is_about_part(self, clause: str, category: str, locale: Locale) -> bool:
        return any(part.find(clause, locale) for part in self._file.parts if category not in part.own)

    def _wrong_bins(self, clause: str, category: str, locale: Locale) -> Iterator[str]:
        if not self._file.disposal.find(clause, locale):
            return
        for each in self._file.bins:
            if category in each.takes or not (found := each.find(clause, locale)):
                continue
            # English forbids before the noun, Korean after it.
            start = found.end() if locale is Locale.KO else 0
            if self._file.forbidden.find(clause, locale, start) or self._allows(each, clause, category, locale):
                continue
            yield each.id

    def _allows(self, wrong_bin: WasteBin, clause: str, category: str, locale: Locale) -> bool:
        return any(
            each.bin == wrong_bin.id and category in each.categories and each.find(clause, locale)
            for each in self._file.allowed
        )

    def _wrong_claims(
        self, claims: Iterable[FalseClaim], clause: str, rest: str, category: str, locale: Locale
    ) -> Iterator[str]:
        """A claim may contain a "not" itself, so only text around it can negate it; in Korean, text after it."""
        for claim in claims:
            if category not in claim.categories or not (found := claim.find(clause, locale)):
                continue
            after = (clause[found.end() :] + rest)[:MAX_NEGATION_DISTANCE_CHARS]
            around = after if locale is Locale.KO else f"{clause[: found.start()]} {after}"
            if not self._file.forbidden.find(around, locale):
                yield claim.id


def _mistakes(file: ContradictionFile, rulebook: Rulebook) -> Iterator[str]:
    categories = set(rulebook.middles())
    named = [
        *((each.id, each.takes) for each in file.bins),
        *((each.id, each.categories) for each in file.claims),
        *((f"allowed {each.bin}", each.categories) for each in file.allowed),
        *(("parts", each.own) for each in file.parts),
    ]
    for location, names in named:
        yield from (f"{FILE}: {location}: no category {name}" for name in names if name not in categories)
    for code in duplicates(each.id for each in (*file.bins, *file.claims)):
        yield f"{FILE}: listed twice: {code}"
    bins = {each.id for each in file.bins}
    yield from (f"{FILE}: allowed: no bin {each.bin}" for each in file.allowed if each.bin not in bins)
    sets = (file.disposal, file.forbidden, file.exceptions, *file.parts, *file.bins, *file.allowed, *file.claims)
    patterns = [file.sentences, file.clauses.ko, file.clauses.en, *(p for each in sets for p in (*each.ko, *each.en))]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{FILE}: {pattern}: {error}"
