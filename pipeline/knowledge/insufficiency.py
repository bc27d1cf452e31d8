"""What is still missing before an item may go out: situation tags → codes, by resources/insufficiencies.yaml. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.texts import Texts
from pipeline.knowledge.yaml_file import read_yaml, repeated
from pipeline.types import JobInput, Locale, Observation, RuleMatch, Strict

FILE = "insufficiencies.yaml"


class InsufficiencyRule(Strict):
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
    """Immutable. A code is the id of a rule and, as `insufficiency.<code>`, the key of its text."""

    def __init__(self, conditions: Iterable[_Condition]) -> None:
        self._conditions = tuple(conditions)

    @classmethod
    def load(cls, resources: Path, rulebook: Rulebook, texts: Texts) -> "Insufficiencies":
        """Raises ValueError naming every mistake: a name that the taxonomy lacks, a code twice or without a text."""
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
        """The codes that hold for an item of this middle category, in the order of the file."""
        seen = frozenset(tags)
        return tuple(
            each.code
            for each in self._conditions
            if category in each.categories and seen & each.tags and not seen & each.unless
        )


def message_key(code: str) -> str:
    return f"insufficiency.{code}"


def texts_of(codes: Iterable[str], texts: Texts, locale: Locale) -> tuple[str, ...]:
    """What a person is told of these codes."""
    return tuple(texts.message(message_key(code), locale) for code in codes)


def missing_texts(observation: Observation, rule: RuleMatch, job: JobInput, texts: Texts) -> tuple[str, ...]:
    """What is missing, for people. Of an item in a photo whose state nobody saw, the rule says what to check."""
    if job.has_photo and not observation.situation_tags:
        return tuple(rule.document["check"])
    codes = (code for each in (rule, *rule.others) for code in each.insufficiencies)
    return texts_of(dict.fromkeys(codes), texts, job.locale)


def _condition(rule: InsufficiencyRule, file: InsufficiencyFile) -> _Condition:
    grouped = [category for group in rule.groups for category in file.groups[group]]
    return _Condition(rule.id, frozenset(rule.tags), frozenset(rule.unless), frozenset((*rule.categories, *grouped)))


def _mistakes(file: InsufficiencyFile, rulebook: Rulebook, texts: Texts) -> Iterator[str]:
    categories, tags = set(rulebook.middles()), set(rulebook.tags)
    for group, members in file.groups.items():
        yield from (f"{FILE}: {group}: no category {name}" for name in members if name not in categories)
    for code in repeated(rule.id for rule in file.rules):
        yield f"{FILE}: listed twice: {code}"
    for rule in file.rules:
        yield from (f"{FILE}: {rule.id}: no category {name}" for name in rule.categories if name not in categories)
        yield from (f"{FILE}: {rule.id}: no group {name}" for name in rule.groups if name not in file.groups)
        yield from (f"{FILE}: {rule.id}: no tag {name}" for name in (*rule.tags, *rule.unless) if name not in tags)
        if not rule.categories and not rule.groups:
            yield f"{FILE}: {rule.id}: holds for no category"
        if message_key(rule.id) not in texts.messages[Locale.KO].messages:
            yield f"{FILE}: {rule.id}: no message {message_key(rule.id)}"
