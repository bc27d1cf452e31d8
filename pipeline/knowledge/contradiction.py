"""Does an answer say what the rule of its category forbids? The patterns are resources/contradictions.yaml. Pure."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field

from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.knowledge.yaml_file import read_yaml, repeated
from pipeline.types import Locale, Strict

FILE = "contradictions.yaml"

REACH = 80
"""So many letters behind a claim may still forbid it."""


class Words(Strict):
    """Regular expressions for lower-case text, by language. Empty ones match nothing."""

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


class Clauses(Strict):
    ko: str
    en: str

    def split(self, sentence: str, locale: Locale) -> Iterator[str]:
        """The clauses, each with what stands before it in the sentence: what a clause means may hang on that."""
        start = 0
        for end in re.finditer(self.ko if locale is Locale.KO else self.en, sentence):
            yield sentence[start : end.end()]
            start = end.end()
        yield sentence[start:]


class Part(Words):
    own: tuple[str, ...]


class Coded(Words):
    id: str


class Bin(Coded):
    takes: tuple[str, ...]


class Allowance(Words):
    bin: str
    categories: tuple[str, ...]


class Claim(Coded):
    of_parts: bool = False
    categories: tuple[str, ...] = Field(min_length=1)


class ContradictionFile(Strict):
    clauses: Clauses
    sentences: str
    disposal: Words
    forbidden: Words
    parts: tuple[Part, ...]
    exceptions: Words
    bins: tuple[Bin, ...]
    allowed: tuple[Allowance, ...]
    claims: tuple[Claim, ...]


class Contradictions:
    """Immutable. A code is the id of a bin that does not take the category, or of a claim that is wrong for it."""

    def __init__(self, file: ContradictionFile) -> None:
        self._file = file

    @classmethod
    def load(cls, resources: Path, rulebook: Rulebook) -> "Contradictions":
        """Raises ValueError naming every mistake: an unknown category or bin, a code twice, a pattern that is none."""
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

        Of an item that nobody recognised no text is wrong.
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
        """From an exception on ("깨졌다면 …") the sentence speaks of another case."""
        exception = self._file.exceptions.find(sentence, locale)
        end = 0
        for clause in self._file.clauses.split(sentence, locale):
            end += len(clause)
            if exception and exception.end() <= end:
                return
            of_a_part = self._is_about_a_part(clause, category, locale)
            if not of_a_part:
                yield from self._wrong_bins(clause, category, locale)
            claims = [each for each in self._file.claims if each.of_parts or not of_a_part]
            yield from self._wrong_claims(claims, clause, sentence[end : end + REACH], category, locale)

    def _is_about_a_part(self, clause: str, category: str, locale: Locale) -> bool:
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

    def _allows(self, wrong: Bin, clause: str, category: str, locale: Locale) -> bool:
        return any(
            each.bin == wrong.id and category in each.categories and each.find(clause, locale)
            for each in self._file.allowed
        )

    def _wrong_claims(
        self, claims: Iterable[Claim], clause: str, rest: str, category: str, locale: Locale
    ) -> Iterator[str]:
        """A claim may hold a "not" of its own, so only what stands around it can forbid it; in Korean, after it."""
        for claim in claims:
            if category not in claim.categories or not (found := claim.find(clause, locale)):
                continue
            after = (clause[found.end() :] + rest)[:REACH]
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
    for place, names in named:
        yield from (f"{FILE}: {place}: no category {name}" for name in names if name not in categories)
    for code in repeated(each.id for each in (*file.bins, *file.claims)):
        yield f"{FILE}: listed twice: {code}"
    bins = {each.id for each in file.bins}
    yield from (f"{FILE}: allowed: no bin {each.bin}" for each in file.allowed if each.bin not in bins)
    words = (file.disposal, file.forbidden, file.exceptions, *file.parts, *file.bins, *file.allowed, *file.claims)
    patterns = [file.sentences, file.clauses.ko, file.clauses.en, *(p for each in words for p in (*each.ko, *each.en))]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{FILE}: {pattern}: {error}"
