"""Insufficiencies: what an item still needs before disposal. Situation tags → codes, by insufficiencies.yaml. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.texts import Texts
from pipeline.knowledge.yaml_file import duplicates, read_yaml
from pipeline.types import JobInput, Locale, Observation, RuleMatch, Strict

FILE = "insufficiencies.yaml"


class InsufficiencyRule(Strict):
    """Holds for an item of these categories or groups that has one of `tags` and none of `unless`."""

    id: str
    tags: tuple[str, ...] = Field(min_length=1)
    categories: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


class InsufficiencyFile(Strict):
    groups: dict[str, tuple[str, ...]]
    rules: tuple[InsufficiencyRule, ...]


@dataclass(frozen=True)
class _Condition:
    code: str
    tags: frozenset[str]
    unless: frozenset[str]
    categories: frozenset[str]


class Insufficiencies:
    """Immutable. A code is a rule's id; `insufficiency.<code>` is the key of its message."""

    def __init__(self, conditions: Iterable[_Condition]) -> None:
        self._conditions = tuple(conditions)

    @classmethod
    def load(cls, resources: Path, rulebook: Rulebook, texts: Texts) -> "Insufficiencies":
        """Raises ValueError with every mistake: an unknown category or tag, a duplicate code, a missing message."""
        mistakes: list[str] = []
        file = read_yaml(resources / FILE, InsufficiencyFile, mistakes)
        if file is not None:
            mistakes += _mistakes(file, rulebook, texts)
        if mistakes or file is None:
            raise ValueError(f"Mistakes in {resources}:\n" + "\n".join(mistakes))
        return cls(_condition(rule, file) for rule in file.rules)

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(each.code for each in self._conditions)

    def missing(self, category: str, tags: Iterable[str]) -> tuple[str, ...]:
        """The codes that apply to an item of this middle category with these tags, in file order."""
        present = frozenset(tags)
        return tuple(
            each.code
            for each in self._conditions
            if category in each.categories and present & each.tags and not present & each.unless
        )


def message_key(code: str) -> str:
    return f"insufficiency.{code}"


def insufficiency_texts(codes: Iterable[str], texts: Texts, locale: Locale) -> tuple[str, ...]:
    """The users' messages for these codes."""
    return tuple(texts.message(message_key(code), locale) for code in codes)


def missing_texts(observation: Observation, rule: RuleMatch, job: JobInput, texts: Texts) -> tuple[str, ...]:
    """The messages for all items of the answer. A photo without situation tags gets the rule's checks instead."""
    if job.has_photo and not observation.situation_tags:
        return tuple(rule.document["check"])
    codes = (code for each in (rule, *rule.others) for code in each.insufficiencies)
    return insufficiency_texts(dict.fromkeys(codes), texts, job.locale)


def _condition(rule: InsufficiencyRule, file: InsufficiencyFile) -> _Condition:
    grouped = [category for group in rule.groups for category in file.groups[group]]
    return _Condition(rule.id, frozenset(rule.tags), frozenset(rule.unless), frozenset((*rule.categories, *grouped)))


def _mistakes(file: InsufficiencyFile, rulebook: Rulebook, texts: Texts) -> Iterator[str]:
    categories, tags = set(rulebook.middles()), set(rulebook.tags)
    for group, members in file.groups.items():
        yield from (f"{FILE}: {group}: no category {name}" for name in members if name not in categories)
    for code in duplicates(rule.id for rule in file.rules):
        yield f"{FILE}: listed twice: {code}"
    for rule in file.rules:
        yield from (f"{FILE}: {rule.id}: no category {name}" for name in rule.categories if name not in categories)
        yield from (f"{FILE}: {rule.id}: no group {name}" for name in rule.groups if name not in file.groups)
        yield from (f"{FILE}: {rule.id}: no tag {name}" for name in (*rule.tags, *rule.unless) if name not in tags)
        if not rule.categories and not rule.groups:
            yield f"{FILE}: {rule.id}: holds for no category"
        if message_key(rule.id) not in texts.messages[Locale.KO].messages:
            yield f"{FILE}: {rule.id}: no message {message_key(rule.id)}"
