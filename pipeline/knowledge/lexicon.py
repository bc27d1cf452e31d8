"""Lexicon of thing names: load, validate and index resources/lexicon. `questions/mentions.py` finds them in a text."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import Field

from pipeline.knowledge.rulebook import Rulebook, TextLine
from pipeline.knowledge.yaml_file import read_yaml
from pipeline.types import Classification, Strict

FOLDER = "lexicon"

Names = tuple[TextLine, ...]


class LexiconEntry(Strict):
    """One thing. The first name of each language is shown to users; the others are spellings or synonyms."""

    ko: Names = Field(min_length=1)
    en: Names = Field(min_length=1)


class LexiconFile(Strict):
    """One file: the things of a middle category, grouped by minor category; `others` have no minor category."""

    category: TextLine
    things: dict[str, tuple[LexiconEntry, ...]]
    others: tuple[LexiconEntry, ...] = ()

    @property
    def groups(self) -> list[tuple[str | None, tuple[LexiconEntry, ...]]]:
        return [*self.things.items(), (None, self.others)]


class Thing(Strict):
    """A thing: its display name in each language, and its classification."""

    ko: str
    en: str
    classification: Classification


class Name(Strict):
    """One spelling of a thing, as written in the file."""

    text: str
    thing: Thing


def name_key(name: str) -> str:
    """The comparison key of a name: NFKC, lower case, letters and digits only (no spaces, no hyphens)."""
    return "".join(char for char in unicodedata.normalize("NFKC", name).lower() if char.isalnum())


class Lexicon:
    """Immutable index from every name, in either language and any spelling, to its thing."""

    def __init__(self, names: Mapping[str, Name]) -> None:
        self._names = dict(names)

    @classmethod
    def load(cls, resources: Path, rulebook: Rulebook) -> "Lexicon":
        """Raises ValueError with every mistake of every file: unknown categories, names listed twice."""
        mistakes: list[str] = []
        paths = sorted((resources / FOLDER).glob("*.yaml"))
        files = {path.name: file for path in paths if (file := read_yaml(path, LexiconFile, mistakes)) is not None}
        for name, file in files.items():
            mistakes += _unknown_categories(name, file, rulebook)
        mistakes += _repeated_names(files)
        if mistakes:
            raise ValueError(f"Mistakes in {resources}:\n" + "\n".join(mistakes))
        return cls(dict(_index(files.values(), rulebook)))

    def find(self, key: str) -> Name | None:
        """The name with this key, which is the `name_key` of a whole name."""
        return self._names.get(key)

    @property
    def keys(self) -> tuple[str, ...]:
        """The `name_key` of every name."""
        return tuple(self._names)

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(dict.fromkeys(name.thing for name in self._names.values()))


def _index(files: Iterable[LexiconFile], rulebook: Rulebook) -> Iterator[tuple[str, Name]]:
    for file in files:
        for minor, entries in file.groups:
            classification = rulebook.classification(file.category, minor)
            for entry in entries:
                thing = Thing(ko=entry.ko[0], en=entry.en[0], classification=classification)
                yield from ((name_key(name), Name(text=name, thing=thing)) for name in (*entry.ko, *entry.en))


def _unknown_categories(name: str, file: LexiconFile, rulebook: Rulebook) -> Iterator[str]:
    if file.category not in rulebook.middles():
        yield f"{FOLDER}/{name}: no category {file.category}"
        return
    unknown = [minor for minor in file.things if minor not in rulebook.minors_of(file.category)]
    yield from (f"{FOLDER}/{name}: {file.category} has no minor {minor}" for minor in unknown)


def _repeated_names(files: Mapping[str, LexiconFile]) -> Iterator[str]:
    first: dict[str, str] = {}
    for file_name, file in files.items():
        for minor, entries in file.groups:
            for name in (name for entry in entries for name in (*entry.ko, *entry.en)):
                location = f"{FOLDER}/{file_name}: {minor or 'others'}: {name}"
                if name_key(name) in first:
                    yield f"{location}: also in {first[name_key(name)]}"
                first.setdefault(name_key(name), location)
