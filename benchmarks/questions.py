"""Accuracy of the question reader without a model on tests/data/questions.jsonl, overall and by category.

A question is right when its kind (things, unknown, not_waste) is right and the middle categories found are exactly the
labelled ones. The parts `held` and `fresh` are held out: not used while lexicon and grammar were written.

tests/data/listings.jsonl: questions that name known things, labelled whether they also name one that the lexicon lacks.
"""

import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.lexicon import Lexicon
from pipeline.knowledge.rulebook import Rulebook
from pipeline.questions.reader import LexiconReader
from pipeline.settings import RESOURCES
from pipeline.types import KnownThings, Locale, ParsedQuestion

QUESTIONS = Path(__file__).parent.parent / "tests" / "data" / "questions.jsonl"
LISTINGS = QUESTIONS.with_name("listings.jsonl")
UNTOUCHED = ("held", "fresh")
"""The held-out parts."""


class Question(BaseModel):
    """One labelled question. `categories` in any order."""

    question: str
    locale: Locale
    kind: str
    categories: list[str]
    tags: list[str]
    part: str


class ListingQuestion(BaseModel):
    """A question that names at least one known thing."""

    question: str
    locale: Locale
    has_unknown: bool
    part: str


def load_questions() -> list[Question]:
    return [Question.model_validate_json(line) for line in QUESTIONS.read_text("utf-8").splitlines()]


def load_listings() -> list[ListingQuestion]:
    return [ListingQuestion.model_validate_json(line) for line in LISTINGS.read_text("utf-8").splitlines()]


def load_reader() -> LexiconReader:
    rulebook = Rulebook.load(RESOURCES)
    return LexiconReader(Lexicon.load(RESOURCES, rulebook), Grammar.load(RESOURCES, rulebook), rulebook)


def categories_of(reading: ParsedQuestion) -> set[str]:
    if not isinstance(reading, KnownThings):
        return set()
    return {thing.classification.middle_category for thing in reading.things}


def is_right(question: Question, reading: ParsedQuestion) -> bool:
    return reading.kind == question.kind and categories_of(reading) == set(question.categories)


def share_right(reader: LexiconReader, questions: Iterable[Question]) -> float:
    return statistics.mean(is_right(each, reader.read(each.question, each.locale)) for each in questions)


def main() -> None:
    reader, questions = load_reader(), load_questions()
    groups: dict[str, list[Question]] = {
        "all": questions,
        **{part: [each for each in questions if each.part == part] for part in ("tune", *UNTOUCHED)},
        "untouched": [each for each in questions if each.part in UNTOUCHED],
        **{locale: [each for each in questions if each.locale == locale] for locale in Locale},
    }
    for name, group in groups.items():
        print(f"{name:<12}{len(group):>5}  {share_right(reader, group):.3f}")
    print()
    for name, right, of in by_category(reader, questions):
        print(f"{name:<14}\t{of:>4}  {right / of:.3f}")
    print()
    print("tags: " + json.dumps(tag_scores(reader, questions)))
    print()
    print(f"unknown things seen where all are known: {len(false_alarms(reader, questions))}")
    listings = load_listings()
    for part in ("tune", *UNTOUCHED):
        scores = unknown_scores(reader, [each for each in listings if each.part == part])
        print(f"unknown beside known, {part}: {json.dumps(scores)}")
    print(f"ms a question: {milliseconds(reader, questions):.2f}")


def by_category(reader: LexiconReader, questions: list[Question]) -> list[tuple[str, int, int]]:
    """(category, right, questions), weakest first. Questions without a category are counted under their kind."""
    right: Counter[str] = Counter()
    of: Counter[str] = Counter()
    for each in questions:
        correct = is_right(each, reader.read(each.question, each.locale))
        for name in each.categories or [each.kind]:
            of[name] += 1
            right[name] += correct
    return sorted(((name, right[name], of[name]) for name in of), key=lambda row: row[1] / row[2])


def tag_scores(reader: LexiconReader, questions: list[Question]) -> dict[str, float]:
    """Precision and recall of the situation tags, on the held-out questions that were read right."""
    counts: defaultdict[str, int] = defaultdict(int)
    for each in questions:
        reading = reader.read(each.question, each.locale)
        if each.part not in UNTOUCHED or not isinstance(reading, KnownThings) or not is_right(each, reading):
            continue
        found = {tag for thing in reading.things for tag in thing.situation_tags}
        counts["right"] += len(found & set(each.tags))
        counts["found"] += len(found)
        counts["labelled"] += len(each.tags)
    return {
        "precision": round(counts["right"] / counts["found"], 3),
        "recall": round(counts["right"] / counts["labelled"], 3),
    }


def has_unknown(reader: LexiconReader, question: Question | ListingQuestion) -> bool:
    reading = reader.read(question.question, question.locale)
    return isinstance(reading, KnownThings) and reading.has_unknown


def false_alarms(reader: LexiconReader, questions: Iterable[Question]) -> list[str]:
    return [each.question for each in questions if each.kind == "things" and has_unknown(reader, each)]


def unknown_scores(reader: LexiconReader, listings: list[ListingQuestion]) -> dict[str, float]:
    """Precision and recall of `has_unknown`."""
    flagged = [each for each in listings if has_unknown(reader, each)]
    right = sum(each.has_unknown for each in flagged)
    return {
        "questions": len(listings),
        "precision": round(right / len(flagged), 3),
        "recall": round(right / sum(each.has_unknown for each in listings), 3),
    }


def milliseconds(reader: LexiconReader, questions: list[Question]) -> float:
    """CPU time for each question, caches warm."""
    began = time.process_time()
    for each in questions:
        reader.read(each.question, each.locale)
    return (time.process_time() - began) * 1000 / len(questions)


if __name__ == "__main__":
    main()
