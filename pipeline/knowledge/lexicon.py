"""The names of things: load, validate and index resources/lexicon. Which name stands where in a text is `matcher`'s."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import Field

from pipeline.knowledge.rulebook import Line, Rulebook
from pipeline.knowledge.yaml_file import read_yaml
from pipeline.types import Classification, Strict

FOLDER = "lexicon"

Names = tuple[Line, ...]


class Entry(Strict):
    """One thing. The first name of each language is the one it is called by; the others are spellings of it."""

    ko: Names = Field(min_length=1)
    en: Names = Field(min_length=1)


class LexiconFile(Strict):
    """The things of one middle category, under its minor categories; `others` belong to none of these."""

    category: Line
    things: dict[str, tuple[Entry, ...]]
    others: tuple[Entry, ...] = ()

    @property
    def groups(self) -> list[tuple[str | None, tuple[Entry, ...]]]:
        return [*self.things.items(), (None, self.others)]


class Thing(Strict):
    """A thing by its first names, with its place in the taxonomy."""

    ko: str
    en: str
    classification: Classification


class Name(Strict):
    """One spelling, as the data has it, of one thing."""

    text: str
    thing: Thing


def key(name: str) -> str:
    """How a name is compared: spaces, hyphens and case say nothing."""
    return "".join(char for char in unicodedata.normalize("NFKC", name).lower() if char.isalnum())


class Lexicon:
    """Immutable. Every name, in whatever language and spelling, leads to one thing."""

    def __init__(self, names: Mapping[str, Name]) -> None:
        self._names = dict(names)

    @classmethod
    def load(cls, resources: Path, rulebook: Rulebook) -> "Lexicon":
        """Raises ValueError naming every mistake of every file: unknown categories, and names listed twice."""
        mistakes: list[str] = []
        paths = sorted((resources / FOLDER).glob("*.yaml"))
        files = {path.name: file for path in paths if (file := read_yaml(path, LexiconFile, mistakes)) is not None}
        for name, file in files.items():
            mistakes += _unknown_places(name, file, rulebook)
        mistakes += _repeated_names(files)
        if mistakes:
            raise ValueError(f"Mistakes in {resources}:\n" + "\n".join(mistakes))
        return cls(dict(_index(files.values(), rulebook)))

    def find(self, compared: str) -> Name | None:
        """By a whole name, as `key` writes it."""
        return self._names.get(compared)

    @property
    def keys(self) -> tuple[str, ...]:
        """All names, as `key` writes them."""
        return tuple(self._names)

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(dict.fromkeys(name.thing for name in self._names.values()))


def _index(files: Iterable[LexiconFile], rulebook: Rulebook) -> Iterator[tuple[str, Name]]:
    for file in files:
        for minor, entries in file.groups:
            place = rulebook.classification(file.category, minor)
            for entry in entries:
                thing = Thing(ko=entry.ko[0], en=entry.en[0], classification=place)
                yield from ((key(name), Name(text=name, thing=thing)) for name in (*entry.ko, *entry.en))


def _unknown_places(name: str, file: LexiconFile, rulebook: Rulebook) -> Iterator[str]:
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
                place = f"{FOLDER}/{file_name}: {minor or 'others'}: {name}"
                if key(name) in first:
                    yield f"{place}: also in {first[key(name)]}"
                first.setdefault(key(name), place)
