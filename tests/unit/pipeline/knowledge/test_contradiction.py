"""Answers that say what their rule forbids, on a labelled set of answers: tests/data/contradictions.jsonl."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.knowledge.contradiction import Contradictions
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.settings import RESOURCES
from pipeline.types import Locale

GOLDEN = Path(__file__).parents[3] / "data" / "contradictions.jsonl"
MIN_PRECISION = 0.97
MIN_RECALL = 0.90

rulebook = Rulebook.load(RESOURCES)
contradictions = Contradictions.load(RESOURCES, rulebook)
golden: list[dict[str, Any]] = [json.loads(line) for line in GOLDEN.read_text("utf-8").splitlines()]
held = [answer for answer in golden if answer["part"] == "held"]


def found_in(answer: dict[str, Any]) -> tuple[str, ...]:
    return contradictions.find([answer["text"]], answer["category"], Locale(answer["locale"]))


def test_the_golden_set_is_large_labelled_and_in_both_languages() -> None:
    assert len(golden) >= 150
    assert {answer["category"] for answer in golden} == set(rulebook.middles()) - {UNCLASSIFIED}
    for locale in Locale:
        of_locale = [answer for answer in golden if answer["locale"] == locale]
        assert len([answer for answer in of_locale if answer["contradicts"]]) >= 50
        assert len([answer for answer in of_locale if not answer["contradicts"]]) >= 30
    assert {code for answer in golden for code in answer["contradicts"]} <= set(contradictions.codes)


def test_few_correct_answers_are_flagged() -> None:
    """On the held-out part."""
    flagged = [answer for answer in held if found_in(answer)]
    assert len([answer for answer in flagged if answer["contradicts"]]) / len(flagged) >= MIN_PRECISION


def test_most_contradictions_are_found() -> None:
    wrong = [answer for answer in held if answer["contradicts"]]
    assert len([answer for answer in wrong if found_in(answer)]) / len(wrong) >= MIN_RECALL


def test_the_codes_found_are_the_labelled_ones() -> None:
    wrong = [answer for answer in golden if answer["contradicts"] and found_in(answer)]
    assert [answer["text"] for answer in wrong if not set(answer["contradicts"]) & set(found_in(answer))] == []


@pytest.mark.parametrize("middle", rulebook.middles())
@pytest.mark.parametrize("locale", Locale)
def test_no_rule_contradicts_itself(middle: str, locale: Locale) -> None:
    rule = rulebook.rule(middle, locale)
    assert rule is not None
    lines = [rule["summary"], *rule["steps"], *rule["cautions"], *rule["not_this"], *rule["check"]]
    assert contradictions.find(lines, middle, locale) == ()


def test_no_text_contradicts_the_rule_of_an_unclassified_item() -> None:
    assert contradictions.find(["종량제봉투에 버려 주세요."], UNCLASSIFIED, Locale.KO) == ()


@pytest.mark.parametrize("text", [", " * 1000, "그대로 버려, " * 250, "as it is, " * 200])
@pytest.mark.parametrize("locale", Locale)
def test_a_text_made_of_clauses_takes_no_longer_than_its_length(text: str, locale: Locale) -> None:
    """It took 15 s when each clause was read with all before it."""
    contradictions.find([""], "무색페트병", locale)  # The patterns are compiled at their first use.
    began = time.process_time()
    contradictions.find([text], "무색페트병", locale)
    assert time.process_time() - began < 1


def test_each_code_is_named_once() -> None:
    twice = ["종량제봉투에 버려 주세요.", "종량제봉투에 넣어 주세요."]
    assert contradictions.find(twice, "전지", Locale.KO) == ("waste_bag",)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    shutil.copy(RESOURCES / "contradictions.yaml", tmp_path)
    path = tmp_path / "contradictions.yaml"
    text = path.read_text("utf-8")
    spoilt = {
        "takes: [전지]": "takes: [우주쓰레기]",
        "id: burn": "id: drain",
        "bin: clothing_bin": "bin: moon_bin",
        "'불연성'": "'(불연성'",
    }
    for old, new in spoilt.items():
        text = text.replace(old, new)
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match="Mistakes in") as caught:
        Contradictions.load(tmp_path, rulebook)
    for part in ("우주쓰레기", "listed twice: drain", "no bin moon_bin", "(불연성"):
        assert part in str(caught.value)
