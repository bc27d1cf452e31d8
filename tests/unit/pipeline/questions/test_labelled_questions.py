"""The labelled questions of tests/data/questions.jsonl are read as well as docs/chat-text.md says, or nearly."""

import pytest

from benchmarks.questions import (
    UNTOUCHED,
    false_alarms,
    is_right,
    load_listings,
    load_questions,
    load_reader,
    share_right,
    unknown_scores,
)
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.settings import RESOURCES
from pipeline.types import Locale

MIN_ACCURACY = {"all": 0.94, "untouched": 0.88}
MIN_UNKNOWN_SCORES = {"precision": 0.93, "recall": 0.74}
"""A little below what was measured."""

MAX_FALSE_ALARMS = 2
"""None was measured."""

rulebook = Rulebook.load(RESOURCES)
questions = load_questions()
listings = load_listings()
reader = load_reader()


def test_the_set_is_large_and_labelled_in_the_taxonomys_words() -> None:
    assert len(questions) >= 300
    assert len({each.question for each in questions}) == len(questions)
    assert {name for each in questions for name in each.categories} == set(rulebook.middles()) - {UNCLASSIFIED}
    assert {tag for each in questions for tag in each.tags} <= set(rulebook.tags)
    assert {each.kind for each in questions} == {"things", "unknown", "not_waste"}
    assert all(len([each for each in questions if each.locale == locale]) >= 100 for locale in Locale)


def test_most_questions_are_read_right() -> None:
    assert share_right(reader, questions) >= MIN_ACCURACY["all"]


def test_most_held_out_questions_are_read_right() -> None:
    assert share_right(reader, [each for each in questions if each.part in UNTOUCHED]) >= MIN_ACCURACY["untouched"]


@pytest.mark.parametrize("question", ["깨진 유리컵은 어떻게 버려요?", "피자 박스에 기름 묻었어", "보조배터리"])
def test_the_questions_that_the_project_began_with_are_read_right(question: str) -> None:
    (labelled,) = [each for each in questions if each.question == question]
    assert is_right(labelled, reader.read(question, Locale.KO))


def test_a_thing_without_a_name_is_noticed_beside_those_that_have_one() -> None:
    assert {each.part for each in listings} == {"tune", *UNTOUCHED}
    assert len({each.question for each in listings}) == len(listings)
    scores = unknown_scores(reader, listings)
    assert {name: scores[name] >= least for name, least in MIN_UNKNOWN_SCORES.items()} == dict.fromkeys(
        MIN_UNKNOWN_SCORES, True
    )


def test_where_every_thing_is_known_none_is_said_to_be_unknown() -> None:
    assert len(false_alarms(reader, questions)) <= MAX_FALSE_ALARMS
