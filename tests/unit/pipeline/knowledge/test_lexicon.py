"""The lexicon and the grammar: what is in them, and what their loaders refuse."""

import shutil
from pathlib import Path

import pytest

from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.lexicon import Lexicon, name_key
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.settings import RESOURCES

rulebook = Rulebook.load(RESOURCES)
lexicon = Lexicon.load(RESOURCES, rulebook)


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
    assert categories == set(rulebook.middles()) - {UNCLASSIFIED}


def test_every_minor_category_but_those_of_no_category_has_a_thing() -> None:
    named = {thing.classification.minor_category for thing in lexicon.things}
    middles = [middle for middle in rulebook.middles() if middle != UNCLASSIFIED]
    assert {minor for middle in middles for minor in rulebook.minors_of(middle)} - named == set()


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
