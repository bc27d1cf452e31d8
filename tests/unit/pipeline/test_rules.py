"""Stage 2: an observation finds its rule."""

import shutil
from pathlib import Path

import pytest

from pipeline.errors import RulesNoMatch
from pipeline.knowledge.insufficiency import Insufficiencies
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.knowledge.texts import Texts
from pipeline.rules import RuleMatcher
from pipeline.settings import RESOURCES
from pipeline.types import Classification, Locale, Observation


@pytest.fixture(scope="module")
def rulebook() -> Rulebook:
    return Rulebook.load(RESOURCES)


def matcher(rulebook: Rulebook) -> RuleMatcher:
    return RuleMatcher(rulebook, Insufficiencies.load(RESOURCES, rulebook, Texts.load(RESOURCES)))


def observed(classification: Classification, *tags: str) -> Observation:
    return Observation(classification=classification, situation_tags=tags, confidence=0.9, model="local/test")


def test_the_rule_of_the_observed_category_is_found(rulebook: Rulebook) -> None:
    rule = matcher(rulebook).match(observed(rulebook.classification("전지", "건전지")), Locale.KO)
    assert (rule.key, rule.category) == ("battery", "전지")
    assert rule.document == rulebook.rule("전지", Locale.KO)


def test_the_rule_is_in_the_language_of_the_job(rulebook: Rulebook) -> None:
    rules = matcher(rulebook)
    korean, english = (
        rules.match(observed(rulebook.classification("전지", None)), locale).document for locale in Locale
    )
    assert korean["title"] != english["title"]


def test_an_abstention_gets_advice(rulebook: Rulebook) -> None:
    rule = matcher(rulebook).match(observed(rulebook.classification(UNCLASSIFIED, None)), Locale.KO)
    assert rule.key == "unclassified"
    assert rule.document["steps"]


def test_a_recognised_category_without_a_rule_is_no_match(tmp_path: Path) -> None:
    shutil.copy(RESOURCES / "taxonomy.yaml", tmp_path)
    shutil.copytree(RESOURCES / "rulebook", tmp_path / "rulebook")
    (tmp_path / "rulebook" / "battery.yaml").unlink()
    rulebook = Rulebook.load(tmp_path)
    with pytest.raises(RulesNoMatch):
        matcher(rulebook).match(observed(rulebook.classification("전지", None)), Locale.KO)


def test_a_category_of_an_older_taxonomy_is_no_match(rulebook: Rulebook) -> None:
    older = Classification(major_category="재활용폐기물", middle_category="옛날분류")
    with pytest.raises(RulesNoMatch):
        matcher(rulebook).match(observed(older), Locale.KO)


def test_the_rule_match_has_the_insufficiencies_of_the_tags(rulebook: Rulebook) -> None:
    bottle = observed(rulebook.classification("유리병", None), "라벨_있음", "액체_남음")
    assert matcher(rulebook).match(bottle, Locale.KO).insufficiencies == ("contents_left", "label_on")
