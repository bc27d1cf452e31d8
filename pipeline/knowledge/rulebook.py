"""Rulebook: taxonomy and disposal rules; load, validate, index. Names and texts are data under resources/, not here."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from pipeline.knowledge.yaml_file import duplicates, read_yaml
from pipeline.types import Classification, Locale, Strict

UNCLASSIFIED = "미분류"

# Rule texts quote the name of a middle category in these quotes, so a misspelt reference fails at load.
QUOTED_CATEGORY = {Locale.KO: re.compile("‘([^’]*)’"), Locale.EN: re.compile("“([^”]*)”")}

TextLine = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$")]
TextLines = Annotated[tuple[TextLine, ...], Field(min_length=1)]


class MinorCategory(Strict):
    ko: TextLine
    en: TextLine


class MiddleCategory(Strict):
    id: TextLine
    ko: TextLine
    en: TextLine
    minors: tuple[MinorCategory, ...] = ()


class MajorCategory(Strict):
    id: TextLine
    ko: TextLine
    en: TextLine
    middles: tuple[MiddleCategory, ...]


class SituationTag(Strict):
    """`id` is the string in results; `hint` goes into the vision prompt and says when the tag applies."""

    id: TextLine
    ko: TextLine
    en: TextLine
    hint: TextLine


class TagGroup(Strict):
    id: TextLine
    ko: TextLine
    en: TextLine
    tags: tuple[SituationTag, ...]


class Taxonomy(Strict):
    majors: tuple[MajorCategory, ...]
    tag_groups: tuple[TagGroup, ...]


class RuleSource(Strict):
    title: TextLine
    url: TextLine


class RuleText(Strict):
    """A rule in one language: `RuleMatch.document`, which clients receive."""

    title: TextLine
    summary: TextLine
    steps: TextLines
    cautions: TextLines
    not_this: TextLines
    check: TextLines
    source: RuleSource


class Rule(Strict):
    """The rule of one middle category; `category` is its Korean name."""

    category: TextLine
    ko: RuleText
    en: RuleText

    def text(self, locale: Locale) -> RuleText:
        return self.ko if locale is Locale.KO else self.en


class Rulebook:
    """The taxonomy with its rules, indexed by Korean name. Immutable; a category may have no rule.

    Lookups of an unknown name raise KeyError.
    """

    def __init__(self, taxonomy: Taxonomy, rules: Iterable[Rule]) -> None:
        """Raises ValueError with every mistake, one a line."""
        rules = tuple(rules)
        if mistakes := [*_taxonomy_mistakes(taxonomy), *_rule_mistakes(taxonomy, rules)]:
            raise ValueError("\n".join(mistakes))
        self.majors = taxonomy.majors
        self.tag_groups = taxonomy.tag_groups
        self._middles = {middle.ko: middle for major in taxonomy.majors for middle in major.middles}
        self._major_of = {middle.ko: major for major in taxonomy.majors for middle in major.middles}
        self._tags = {tag.id: tag for group in taxonomy.tag_groups for tag in group.tags}
        self._rules = {rule.category: rule for rule in rules}

    @classmethod
    def load(cls, resources: Path) -> "Rulebook":
        """Read taxonomy.yaml and rulebook/*.yaml. Raises ValueError with every mistake of every file."""
        mistakes: list[str] = []
        taxonomy = read_yaml(resources / "taxonomy.yaml", Taxonomy, mistakes)
        paths = sorted((resources / "rulebook").glob("*.yaml"))
        rules = [rule for path in paths if (rule := read_yaml(path, Rule, mistakes)) is not None]
        book = None
        if taxonomy is not None:
            try:
                book = cls(taxonomy, rules)
            except ValueError as error:
                mistakes.append(str(error))
        if mistakes or book is None:
            raise ValueError(f"Mistakes in {resources}:\n" + "\n".join(mistakes))
        return book

    @property
    def tags(self) -> tuple[str, ...]:
        """The id of every situation tag, in the taxonomy's order."""
        return tuple(self._tags)

    def tag(self, tag_id: str) -> SituationTag:
        return self._tags[tag_id]

    def middles(self) -> tuple[str, ...]:
        """The Korean name of every middle category, 미분류 included, in the taxonomy's order."""
        return tuple(self._middles)

    def middle(self, name: str) -> MiddleCategory:
        return self._middles[name]

    def major_of(self, middle: str) -> MajorCategory:
        return self._major_of[middle]

    def minors_of(self, middle: str) -> tuple[str, ...]:
        return tuple(minor.ko for minor in self.middle(middle).minors)

    def classification(self, middle: str, minor: str | None) -> Classification:
        """Major, middle and minor category. Raises KeyError also for a minor of another middle category."""
        if minor is not None and minor not in self.minors_of(middle):
            raise KeyError(f"{middle} > {minor}")
        return Classification(major_category=self.major_of(middle).ko, middle_category=middle, minor_category=minor)

    def rule(self, middle: str, locale: Locale) -> dict[str, Any] | None:
        """The rule as JSON, a fresh copy; the one of 미분류 is advice. None for a category without a rule."""
        rule = self._rules.get(middle)
        return rule.text(locale).model_dump(mode="json") if rule else None

    def categories(self, locale: Locale) -> list[dict[str, Any]]:
        """Every middle category in the format of `GET /scan/categories`."""
        return [self._category(middle, locale) for middle in self._middles.values()]

    def _category(self, middle: MiddleCategory, locale: Locale) -> dict[str, Any]:
        rule = self._rules.get(middle.ko)
        return {
            "id": middle.id,
            "name": middle.ko,
            "display_name": middle.ko if locale is Locale.KO else middle.en,
            "instructions": list(rule.text(locale).steps) if rule else [],
        }


def _taxonomy_mistakes(taxonomy: Taxonomy) -> Iterator[str]:
    middles = [middle for major in taxonomy.majors for middle in major.middles]
    minors = [minor for middle in middles for minor in middle.minors]
    tags = [tag for group in taxonomy.tag_groups for tag in group.tags]
    listed = {
        "major category": taxonomy.majors,
        "middle category": middles,
        "tag group": taxonomy.tag_groups,
        "tag": tags,
    }
    for kind, things in listed.items():
        for field in ("id", "ko", "en"):
            for name in duplicates([getattr(thing, field) for thing in things]):
                yield f"taxonomy.yaml: {kind} listed twice: {name}"
    for name in [*duplicates([minor.ko for minor in minors]), *duplicates([minor.en for minor in minors])]:
        yield f"taxonomy.yaml: minor category listed twice: {name}"
    if UNCLASSIFIED not in {middle.ko for middle in middles}:
        yield f"taxonomy.yaml: there is no middle category {UNCLASSIFIED}"


def _rule_mistakes(taxonomy: Taxonomy, rules: tuple[Rule, ...]) -> Iterator[str]:
    names = {
        Locale.KO: {middle.ko for major in taxonomy.majors for middle in major.middles},
        Locale.EN: {middle.en for major in taxonomy.majors for middle in major.middles},
    }
    for category in duplicates([rule.category for rule in rules]):
        yield f"rulebook: two rules for {category}"
    for rule in rules:
        if rule.category not in names[Locale.KO]:
            yield f"rulebook: a rule for {rule.category}: not in the taxonomy"
        for locale in Locale:
            text = rule.text(locale).model_dump_json()
            for name in sorted(set(QUOTED_CATEGORY[locale].findall(text)) - names[locale]):
                yield f"rulebook: the {locale} rule for {rule.category} names {name}: not in the taxonomy"
