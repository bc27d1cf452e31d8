"""The lexicon and the grammar: what is in them, and what their loaders refuse."""

import re
import shutil
from pathlib import Path

import pytest

from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.lexicon import Lexicon, name_key
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook, RuleText
from pipeline.questions.mentions import HEAD_NOUN_CONFIDENCE, MentionFinder, normalise
from pipeline.settings import RESOURCES
from pipeline.types import Locale

IN_A_STATE = (
    "the rule excludes it only in a state that it names: greasy, stained, coloured, too large, of use as a part"
)
HANDLING = "the rule says how to handle it, not that it goes elsewhere"
NOT_THE_THING = "the sentence names something else: onion skins, a box of its own, building waste in the law's sense"
STAND_IN_THEIR_OWN_RULE = {
    "전지": {"배터리": IN_A_STATE, "전지": IN_A_STATE, "단추형 전지": HANDLING, "리튬전지": HANDLING},
    "대형폐기물": {"문짝": HANDLING, "서랍": HANDLING},
    "무색페트병": {"페트병": IN_A_STATE},
    "공사장생활폐기물": {"건설 폐기물": NOT_THE_THING, "석면": HANDLING, "슬레이트": HANDLING},
    "전기전자제품": {"가전": IN_A_STATE, "냉장고": HANDLING, "에어컨": HANDLING},
    "발포합성수지": {"스티로폼": IN_A_STATE, "컵라면 용기": IN_A_STATE, "완충재": HANDLING},
    "음식물류폐기물": {"양파": NOT_THE_THING, "전": NOT_THE_THING, "국물": HANDLING},
    "일반종량제폐기물": {"칼날": HANDLING, "숯": HANDLING, "끈": NOT_THE_THING},
    "유리병": {"병": IN_A_STATE, "보증금 병": HANDLING},
    "생활계유해폐기물": {"약": NOT_THE_THING, "물약": HANDLING, "연고": HANDLING, "안약": HANDLING, "수은": HANDLING},
    "조명제품": {"형광등": HANDLING},
    "금속류": {"캔": HANDLING, "통조림": HANDLING},
    "종이": {"종이": IN_A_STATE, "피자 상자": IN_A_STATE, "종이 접시": IN_A_STATE, "종이컵": HANDLING},
    "종이팩": {"종이팩": IN_A_STATE},
    "플라스틱류": {"플라스틱 제품": IN_A_STATE, "바구니": HANDLING},
    "의류및원단": {"옷": IN_A_STATE},
    "비닐류": {"비닐": IN_A_STATE, "에어캡": HANDLING},
}
"""Category → its things in its own rule's `not_this` or `cautions`, and why that is no contradiction."""

rulebook = Rulebook.load(RESOURCES)
lexicon = Lexicon.load(RESOURCES, rulebook)
finder = MentionFinder(lexicon, Grammar.load(RESOURCES, rulebook), rulebook)


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(RESOURCES / "lexicon", tmp_path / "lexicon")
    shutil.copy(RESOURCES / "grammar.yaml", tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_it_knows_six_hundred_things_in_every_category() -> None:
    assert len(lexicon.things) >= 600
    categories = {thing.classification.middle_category for thing in lexicon.things}
    assert categories == set(rulebook.middles())


def test_every_minor_category_but_those_of_no_category_has_a_thing() -> None:
    named = {thing.classification.minor_category for thing in lexicon.things}
    middles = [middle for middle in rulebook.middles() if middle != UNCLASSIFIED]
    assert {minor for middle in middles for minor in rulebook.minors_of(middle)} - named == set()


@pytest.mark.parametrize("category", [name for name in rulebook.middles() if name != UNCLASSIFIED])
def test_no_thing_is_excluded_by_the_rule_of_its_own_category(category: str) -> None:
    rule = RuleText.model_validate(rulebook.rule(category, Locale.KO))
    sentences = [re.sub(r"‘[^’]*’", "", each) for each in (*rule.not_this, *rule.cautions)]  # In quotes: categories.
    named = [mention for each in sentences for mention in finder.find(normalise(each))]
    certain = [each for each in named if each.confidence > HEAD_NOUN_CONFIDENCE]
    excluded = {each.ko for each in certain if each.classification.middle_category == category}
    assert excluded == STAND_IN_THEIR_OWN_RULE.get(category, {}).keys()


def test_the_files_are_named_for_their_categories() -> None:
    for path in (RESOURCES / "lexicon").iterdir():
        category = path.read_text("utf-8").splitlines()[0].removeprefix("category: ")
        assert path.stem == rulebook.middle(category).id


@pytest.mark.parametrize("written", ["유리 컵", "유리컵", "Drinking Glass", "drinking-glass", "ＬＥＤ 전구"])
def test_spaces_hyphens_case_and_width_say_nothing(written: str) -> None:
    assert lexicon.find(name_key(written)) is not None


def test_a_name_of_two_categories_is_refused_with_both_places(resources: Path) -> None:
    edit(resources / "lexicon" / "battery.yaml", "ko: [보조배터리", "ko: [유리컵, 보조배터리")
    with pytest.raises(ValueError, match="Mistakes in") as caught:
        Lexicon.load(resources, rulebook)
    assert "유리컵: also in lexicon/battery.yaml: 보조배터리: 유리컵" in str(caught.value)


def test_all_mistakes_of_all_files_are_named_at_once(resources: Path) -> None:
    edit(resources / "lexicon" / "battery.yaml", "category: 전지", "category: 우주쓰레기")
    edit(resources / "lexicon" / "lighting.yaml", "  LED 전구:", "  우주등:")
    edit(resources / "lexicon" / "metal.yaml", "ko: [", "ko: [], xx: [")
    with pytest.raises(ValueError, match="Mistakes in") as caught:
        Lexicon.load(resources, rulebook)
    assert all(part in str(caught.value) for part in ("우주쓰레기", "우주등", "metal.yaml: things"))


def test_all_mistakes_of_the_grammar_are_named_at_once(resources: Path) -> None:
    edit(resources / "grammar.yaml", "category: 비닐류}", "category: 우주쓰레기}")
    edit(resources / "grammar.yaml", "minor: 책·노트", "minor: 우주책")
    edit(resources / "grammar.yaml", "opposite: 라벨_있음", "opposite: 라벨_잇음")
    edit(resources / "grammar.yaml", "배불뚝", "(배불뚝")
    with pytest.raises(ValueError, match="Mistakes in") as caught:
        Grammar.load(resources, rulebook)
    assert all(part in str(caught.value) for part in ("우주쓰레기", "우주책", "라벨_잇음", "(배불뚝"))
