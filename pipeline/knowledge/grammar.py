"""How people write about waste: load and validate resources/grammar.yaml. The patterns are data; none are here."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field

from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.yaml_file import read_yaml
from pipeline.types import Strict

FILE = "grammar.yaml"


class Pattern(Strict):
    """One regular expression a language. A text may mix languages, so both are looked for. Empty ones match nothing."""

    ko: str = ""
    en: str = ""

    @cached_property
    def either(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{each})" for each in (self.ko, self.en) if each) or "(?!)")


class Patterns(Strict):
    """Several of each."""

    ko: tuple[str, ...] = ()
    en: tuple[str, ...] = ()

    @cached_property
    def either(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{each})" for each in (*self.ko, *self.en)) or "(?!)")


class Suffixes(Strict):
    ko: tuple[str, ...]
    en: tuple[str, ...]

    @cached_property
    def all(self) -> frozenset[str]:
        return frozenset((*self.ko, *self.en))


class Relations(Strict):
    first_is_context: Patterns
    only_context: Patterns
    second_is_context: Patterns
    first_is_vessel: Patterns
    left_inside: Patterns


class Material(Strict):
    names: tuple[str, ...]
    category: str


class Head(Strict):
    names: tuple[str, ...]
    category: str
    minor: str | None = None


class Move(Strict):
    """A thing of a category in `origin` with one of `tags` belongs in `to`."""

    origin: tuple[str, ...] = Field(alias="from")
    tags: tuple[str, ...]
    to: str
    minor: str | None = None


class Listing(Strict):
    """What a list of things is made of. `noun` and `no_things` are of whole texts, the others are found in them."""

    joints: Pattern
    asked: Pattern
    fillers: Pattern
    noun: Pattern
    no_things: Pattern


class Situation(Patterns):
    tag: str
    opposite: str | None = None
    fixed: bool = False

    @cached_property
    def korean(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{each})" for each in self.ko) or "(?!)")

    @cached_property
    def english(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{each})" for each in self.en) or "(?!)")


class Grammar(Strict):
    suffixes: Suffixes
    run_on: str
    masks: Patterns
    destinations: Pattern
    relations: Relations
    dangerous: tuple[str, ...]
    joining: tuple[str, ...]
    parts: tuple[str, ...]
    ambiguous: tuple[str, ...]
    materials: tuple[Material, ...]
    by_material: tuple[str, ...]
    heads: tuple[Head, ...]
    moves: tuple[Move, ...]
    negations: Pattern
    situations: tuple[Situation, ...]
    listing: Listing
    disposal: Pattern
    discarded: Pattern
    off_topic: Pattern

    @classmethod
    def load(cls, resources: Path, rulebook: Rulebook) -> "Grammar":
        """Raises ValueError naming every mistake: a name that the taxonomy lacks, a pattern that is none."""
        mistakes: list[str] = []
        grammar = read_yaml(resources / FILE, cls, mistakes)
        if grammar is not None:
            mistakes += [*_unknown_names(grammar, rulebook), *_broken_patterns(grammar)]
        if mistakes or grammar is None:
            raise ValueError(f"Mistakes in {resources}:\n" + "\n".join(mistakes))
        return grammar


def _unknown_names(grammar: Grammar, rulebook: Rulebook) -> Iterator[str]:
    categories, tags = set(rulebook.middles()), set(rulebook.tags)
    named = [
        *((each.category, None) for each in grammar.materials),
        *((each.category, each.minor) for each in grammar.heads),
        *((each.to, each.minor) for each in grammar.moves),
        *((name, None) for each in grammar.moves for name in each.origin),
        *((name, None) for name in grammar.dangerous),
    ]
    for category, minor in named:
        if category not in categories:
            yield f"{FILE}: no category {category}"
        elif minor is not None and minor not in rulebook.minors_of(category):
            yield f"{FILE}: {category} has no minor {minor}"
    opposites = [each.opposite for each in grammar.situations if each.opposite]
    moved = [tag for each in grammar.moves for tag in each.tags]
    said = [each.tag for each in grammar.situations]
    for tag in (*said, *opposites, *moved):
        if tag not in tags:
            yield f"{FILE}: no tag {tag}"


def _broken_patterns(grammar: Grammar) -> Iterator[str]:
    relations = grammar.relations
    several = (
        grammar.masks,
        relations.first_is_context,
        relations.only_context,
        relations.second_is_context,
        relations.first_is_vessel,
        relations.left_inside,
    )
    listing = grammar.listing
    single = (
        grammar.destinations,
        grammar.negations,
        grammar.disposal,
        grammar.discarded,
        grammar.off_topic,
        listing.joints,
        listing.asked,
        listing.fillers,
        listing.noun,
        listing.no_things,
    )
    patterns = [
        grammar.run_on,
        *(pattern for each in (*several, *grammar.situations) for pattern in (*each.ko, *each.en)),
        *(pattern for each in single for pattern in (each.ko, each.en)),
    ]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{FILE}: {pattern}: {error}"
