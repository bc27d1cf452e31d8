"""Labelled questions in words from a JSONL file: each with its categories, or none. Asks no model."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import AliasChoices, Field, ValidationError, model_validator

from cli.evaluation.dataset import MAX_NAMED_MISTAKES, numbered_lines
from cli.evaluation.labels import Labels
from cli.evaluation.records import NOT_WASTE, CannotEvaluate, Labelled
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.types import Locale, Subject, VersionTolerant


class QuestionEntry(VersionTolerant):
    """One line. The truth is `category`, or any of `categories` and `also`, or the category of `minor`; else none.

    A question without a category is `not_waste`, or its thing is unknown (`unsure`). `kind` says the same as these two.
    """

    text: str = Field(min_length=1, validation_alias=AliasChoices("text", "question"))
    locale: Locale = Locale.KO
    category: str | None = None
    categories: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    minor: str | None = None
    unsure: bool = False
    not_waste: bool = False
    kind: str = ""
    split: str | None = Field(None, validation_alias=AliasChoices("split", "part"))

    @property
    def has_category(self) -> bool:
        return bool(self.category or self.categories or self.minor)

    @property
    def is_not_waste(self) -> bool:
        return self.not_waste or self.kind == Subject.NOT_WASTE

    @property
    def is_unsure(self) -> bool:
        return self.unsure or self.kind == Subject.UNKNOWN

    @model_validator(mode="after")
    def _has_one_truth(self) -> "QuestionEntry":
        if [self.has_category, self.is_not_waste, self.is_unsure].count(True) != 1:
            raise ValueError("a question needs a category, or `unsure`, or `not_waste`, and one of them only")
        return self


def labelled_questions(source: Path, split: str | None, labels: Labels, rulebook: Rulebook) -> list[Labelled]:
    """Sorted by text. Raises CannotEvaluate that lists the mistakes of the file, or if there is no question."""
    mistakes: list[str] = []
    entries = list(_entries(source, mistakes))
    if mistakes:
        raise CannotEvaluate(f"mistakes in {source}:\n" + "\n".join(mistakes[:MAX_NAMED_MISTAKES]))
    found = {f"{each.locale} {each.text}": each for each in entries if split in {None, each.split}}
    if not found:
        raise CannotEvaluate(f"there are no labelled questions{f' of the split {split}' if split else ''} in {source}")
    questions = [_labelled(each, source, labels, rulebook) for each in found.values()]
    return sorted(questions, key=lambda each: (each.photo, each.locale))


def _entries(source: Path, mistakes: list[str]) -> Iterator[QuestionEntry]:
    try:
        text = source.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotEvaluate(f"{source} cannot be read: {error}") from error
    for number, line in numbered_lines(text):
        try:
            yield QuestionEntry.model_validate_json(line)
        except ValidationError as error:
            mistakes.append(f"line {number}: {'; '.join(each['msg'] for each in error.errors(include_input=False))}")


def _labelled(entry: QuestionEntry, source: Path, labels: Labels, rulebook: Rulebook) -> Labelled:
    truths = list(_truths(entry, labels, rulebook))
    return Labelled(
        photo=entry.text,
        path=source,
        label=truths[0],
        truth=truths[0],
        also=frozenset(truths[1:]),
        question=entry.text,
        locale=entry.locale,
    )


def _truths(entry: QuestionEntry, labels: Labels, rulebook: Rulebook) -> Iterator[str]:
    if entry.is_not_waste:
        yield NOT_WASTE
    elif entry.is_unsure:
        yield UNCLASSIFIED
    else:
        yield from labels.categories((*filter(None, [entry.category]), *entry.categories, *entry.also))
        if entry.minor:
            yield from _of_minor(entry.minor, rulebook)


def _of_minor(minor: str, rulebook: Rulebook) -> Iterator[str]:
    middles = [middle for middle in rulebook.middles() if minor in rulebook.minors_of(middle)]
    if not middles:
        raise CannotEvaluate(f"there is no minor category {minor}")
    yield from middles
