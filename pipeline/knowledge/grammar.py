"""Grammar of questions about waste: load and validate resources/grammar.yaml. The patterns are data, not code."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field

from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.yaml_file import read_yaml
from pipeline.types import Strict

FILE = "grammar.yaml"


class BilingualPattern(Strict):
    """One regular expression for each language. Texts mix languages: `either` matches both; "" matches nothing."""

    ko: str = ""
    en: str = ""

    @cached_property
    def either(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{each})" for each in (self.ko, self.en) if each) or "(?!)")


class BilingualPatterns(Strict):
    """Several regular expressions for each language; `either` matches any of them."""

    ko: tuple[str, ...] = ()
    en: tuple[str, ...] = ()

    @cached_property
    def either(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{each})" for each in (*self.ko, *self.en)) or "(?!)")


class Suffixes(Strict):
    """Endings that may follow a noun, such as particles and plurals."""

    ko: tuple[str, ...]
    en: tuple[str, ...]

    @cached_property
    def all(self) -> frozenset[str]:
        return frozenset((*self.ko, *self.en))


class Relations(Strict):
    """Patterns for the text after a first thing, or between two: which one is context, which one a container."""

    first_is_context: BilingualPatterns
    only_context: BilingualPatterns
    second_is_context: BilingualPatterns
    first_is_vessel: BilingualPatterns
    left_inside: BilingualPatterns


class Material(Strict):
    """Words for a material, and the category of a thing made of it."""

    names: tuple[str, ...]
    category: str


class HeadNoun(Strict):
    """Last part of a compound noun that decides its category when the lexicon lacks the compound."""

    names: tuple[str, ...]
    category: str
    minor: str | None = None


class CategoryChange(Strict):
    """A thing of a category in `origin` (YAML: `from`) that has one of `tags` belongs to category `to` instead."""

    origin: tuple[str, ...] = Field(alias="from")
    tags: tuple[str, ...]
    to: str
    minor: str | None = None


class ListPatterns(Strict):
    """Patterns that recognise a list of things. `noun` and `no_things` match whole strings, the others search."""

    joints: BilingualPattern
    asked: BilingualPattern
    fillers: BilingualPattern
    noun: BilingualPattern
    no_things: BilingualPattern


class SituationPatterns(BilingualPatterns):
    """Phrases for one situation tag. Negated, they mean `opposite`, or nothing; with `fixed`, negation is ignored."""

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
    masks: BilingualPatterns
    destinations: BilingualPattern
    relations: Relations
    dangerous: tuple[str, ...]
    joining: tuple[str, ...]
    parts: tuple[str, ...]
    ambiguous: tuple[str, ...]
    materials: tuple[Material, ...]
    by_material: tuple[str, ...]
    heads: tuple[HeadNoun, ...]
    moves: tuple[CategoryChange, ...]
    negations: BilingualPattern
    situations: tuple[SituationPatterns, ...]
    listing: ListPatterns
    disposal: BilingualPattern
    discarded: BilingualPattern
    off_topic: BilingualPattern

    @classmethod
    def load(cls, resources: Path, rulebook: Rulebook) -> "Grammar":
        """Raises ValueError with every mistake: an unknown category, minor or tag, an invalid regular expression."""
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
    changing = [tag for each in grammar.moves for tag in each.tags]
    situations = [each.tag for each in grammar.situations]
    for tag in (*situations, *opposites, *changing):
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
