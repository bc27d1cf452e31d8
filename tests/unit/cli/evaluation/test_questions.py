"""Labelled questions are read from a JSONL file."""

from pathlib import Path

import pytest

from cli.evaluation.labels import Labels
from cli.evaluation.questions import labelled_questions
from cli.evaluation.records import NOT_WASTE, CannotEvaluate, Labelled
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.settings import RESOURCES
from pipeline.types import Locale

rulebook = Rulebook.load(RESOURCES)


def found(tmp_path: Path, *lines: str, split: str | None = None) -> list[Labelled]:
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    return labelled_questions(path, split, Labels(rulebook, {}), rulebook)


@pytest.mark.parametrize(
    ("line", "truth", "also"),
    [
        ('{"text": "a", "category": "glass_bottle"}', "유리병", set()),
        ('{"question": "a", "kind": "things", "categories": ["종이", "Metals"]}', "종이", {"금속류"}),
        ('{"text": "a", "category": "종이", "also": ["일반종량제폐기물"]}', "종이", {"일반종량제폐기물"}),
        ('{"text": "a", "minor": "음료 캔"}', "금속류", set()),
        ('{"text": "a", "unsure": true}', UNCLASSIFIED, set()),
        ('{"text": "a", "kind": "unknown", "categories": []}', UNCLASSIFIED, set()),
        ('{"text": "a", "not_waste": true}', NOT_WASTE, set()),
        ('{"text": "a", "kind": "not_waste"}', NOT_WASTE, set()),
    ],
)
def test_a_line_says_which_categories_are_right_or_that_none_is(
    tmp_path: Path, line: str, truth: str, also: set[str]
) -> None:
    (question,) = found(tmp_path, line)
    assert (question.truth, set(question.also), question.question, question.photo) == (truth, also, "a", "a")
    assert question.locale is Locale.KO


def test_a_split_or_part_selects_and_a_language_tells_two_apart(tmp_path: Path) -> None:
    lines = [
        '{"text": "can", "category": "금속류", "part": "x"}',
        '{"text": "can", "locale": "en", "category": "금속류", "split": "x"}',
        '{"text": "b", "category": "금속류"}',
    ]
    assert [(each.photo, each.locale) for each in found(tmp_path, *lines, split="x")] == [("can", "en"), ("can", "ko")]
    with pytest.raises(CannotEvaluate):
        found(tmp_path, *lines, split="none")


def test_all_mistakes_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(CannotEvaluate) as caught:
        found(tmp_path, '{"text": "a"}', "no JSON", '{"text": "b", "category": "종이", "unsure": true}')
    assert [f"line {number}" in str(caught.value) for number in (1, 2, 3)] == [True] * 3


@pytest.mark.parametrize("label", ['"category": "우주쓰레기"', '"minor": "우주컵"'])
def test_an_unknown_category_or_minor_ends_the_run(tmp_path: Path, label: str) -> None:
    with pytest.raises(CannotEvaluate, match="우주"):
        found(tmp_path, f'{{"text": "a", {label}}}')
