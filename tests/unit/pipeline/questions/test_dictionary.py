"""The lexicon agrees with the ministry's dictionary (분리배출.kr): its names and the similar names that it gives.

tests/data/dictionary.jsonl (a file for `bunri eval --questions`) has a line for each of them: `ids`, its numbers in the
dictionary (`niIdx`); `categories`, its first class in our words; `also`, its further classes; `why` we differ.
A line that is `unsure` is a thing that no category of ours fits: it must be unknown rather than confidently wrong.
"""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.questions import categories_of, load_reader
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.settings import RESOURCES
from pipeline.types import Locale

DICTIONARY = Path(__file__).parents[3] / "data" / "dictionary.jsonl"

MIN_NAMES, MIN_SIMILAR, MAX_CONFIDENTLY_WRONG = 0.98, 0.97, 0.01

reader = load_reader()
rulebook = Rulebook.load(RESOURCES)


class Line(BaseModel):
    """`split`: a name, a similar name, or no name of a thing (`none`), which is not counted."""

    model_config = ConfigDict(extra="forbid")

    text: str
    split: Literal["names", "similar", "none"]
    ids: list[int]
    categories: list[str] = []
    also: list[str] = []
    unsure: bool = False
    why: str = ""


class Outcome(StrEnum):
    RIGHT = "right"
    UNKNOWN = "unknown"
    OTHER = "other"


lines = [Line.model_validate_json(line) for line in DICTIONARY.read_text("utf-8").splitlines()]
counted = [line for line in lines if line.split != "none"]


def read(line: Line) -> set[str]:
    return categories_of(reader.read(line.text, Locale.KO))


def outcome(line: Line, *, accepted: Iterable[str]) -> Outcome:
    read_as = read(line)
    if not read_as:
        return Outcome.UNKNOWN if line.categories else Outcome.RIGHT
    return Outcome.RIGHT if len(read_as) == 1 and read_as <= set(accepted) else Outcome.OTHER


def shares(lines: list[Line]) -> dict[Outcome, float]:
    found = Counter(outcome(line, accepted=(*line.categories, *line.also)) for line in lines)
    return {each: found[each] / len(lines) for each in Outcome}


def test_it_is_the_whole_dictionary_in_our_categories() -> None:
    assert len({number for line in lines if line.split != "similar" for number in line.ids}) >= 730
    named = {name for line in lines for name in (*line.categories, *line.also)}
    assert named == set(rulebook.middles()) - {UNCLASSIFIED}
    assert len([line for line in lines if line.split == "none"]) <= 20
    assert all(line.why for line in lines if line.split == "none")


def test_names_are_read_as_the_dictionary_has_them() -> None:
    found = shares([line for line in counted if line.split == "names"])
    assert found[Outcome.RIGHT] >= MIN_NAMES
    assert found[Outcome.OTHER] <= MAX_CONFIDENTLY_WRONG


def test_similar_names_are_read_as_those_that_they_stand_with() -> None:
    found = shares([line for line in counted if line.split == "similar"])
    assert found[Outcome.RIGHT] >= MIN_SIMILAR
    assert found[Outcome.UNKNOWN] <= 1 - MIN_SIMILAR


def test_each_deviation_from_the_first_class_has_its_reason_and_still_is_one() -> None:
    differ = {line.text for line in counted if outcome(line, accepted=line.categories) is not Outcome.RIGHT}
    assert differ == {line.text for line in counted if line.why}
