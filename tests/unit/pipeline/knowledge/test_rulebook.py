"""The loader of taxonomy and rules: what it finds, and what it refuses."""

import shutil
from pathlib import Path

import pytest

from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.settings import RESOURCES
from pipeline.types import Classification, Locale


@pytest.fixture(scope="module")
def rulebook() -> Rulebook:
    return Rulebook.load(RESOURCES)


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copy(RESOURCES / "taxonomy.yaml", tmp_path)
    shutil.copytree(RESOURCES / "rulebook", tmp_path / "rulebook")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def mistakes_in(resources: Path) -> str:
    with pytest.raises(ValueError, match="Mistakes in") as caught:
        Rulebook.load(resources)
    return str(caught.value)


def test_a_middle_category_is_placed_under_its_major(rulebook: Rulebook) -> None:
    assert rulebook.classification("종이팩", None) == Classification(
        major_category="재활용폐기물", middle_category="종이팩", minor_category=None
    )


def test_a_minor_category_is_kept_in_the_classification(rulebook: Rulebook) -> None:
    assert rulebook.classification("종이", "골판지 상자").minor_category == "골판지 상자"


def test_an_unknown_middle_category_is_a_key_error(rulebook: Rulebook) -> None:
    with pytest.raises(KeyError):
        rulebook.classification("우주쓰레기", None)


def test_a_minor_category_of_another_middle_is_a_key_error(rulebook: Rulebook) -> None:
    with pytest.raises(KeyError):
        rulebook.classification("종이팩", "골판지 상자")


def test_a_tag_is_found_by_its_id(rulebook: Rulebook) -> None:
    first = rulebook.tags[0]
    assert rulebook.tag(first).id == first


@pytest.mark.parametrize("locale", Locale)
def test_a_rule_has_exactly_the_documented_keys(rulebook: Rulebook, locale: Locale) -> None:
    rule = rulebook.rule("유리병", locale)
    assert rule is not None
    assert list(rule) == ["title", "summary", "steps", "cautions", "not_this", "check", "source"]
    assert list(rule["source"]) == ["title", "url"]


def test_a_rule_is_handed_out_as_a_copy(rulebook: Rulebook) -> None:
    taken = rulebook.rule("유리병", Locale.KO)
    assert taken is not None
    taken["steps"].append("병을 던져 주세요.")
    assert rulebook.rule("유리병", Locale.KO) != taken


def test_an_unknown_category_has_no_rule(rulebook: Rulebook) -> None:
    assert rulebook.rule("우주쓰레기", Locale.KO) is None


def test_the_listing_names_every_category_in_the_readers_language(rulebook: Rulebook) -> None:
    korean, english = rulebook.categories(Locale.KO), rulebook.categories(Locale.EN)
    assert [each["name"] for each in korean] == list(rulebook.middles())
    assert [each["name"] for each in english] == list(rulebook.middles())
    battery = next(each for each in english if each["name"] == "전지")
    assert (battery["id"], battery["display_name"]) == ("battery", "Batteries")


def test_the_listing_gives_the_steps_of_the_rule(rulebook: Rulebook) -> None:
    rule = rulebook.rule("전지", Locale.EN)
    battery = next(each for each in rulebook.categories(Locale.EN) if each["name"] == "전지")
    assert rule is not None
    assert battery["instructions"] == rule["steps"]


def test_a_category_without_a_rule_still_loads(resources: Path) -> None:
    (resources / "rulebook" / "battery.yaml").unlink()
    rulebook = Rulebook.load(resources)
    assert rulebook.rule("전지", Locale.KO) is None
    assert "전지" in [each["name"] for each in rulebook.categories(Locale.KO)]


def test_two_rules_for_one_category_are_refused(resources: Path) -> None:
    shutil.copy(resources / "rulebook" / "battery.yaml", resources / "rulebook" / "battery_again.yaml")
    assert "two rules for 전지" in mistakes_in(resources)


def test_a_rule_for_an_unknown_category_is_refused(resources: Path) -> None:
    edit(resources / "rulebook" / "battery.yaml", "category: 전지", "category: 우주쓰레기")
    assert "우주쓰레기: not in the taxonomy" in mistakes_in(resources)


@pytest.mark.parametrize(("old", "new"), [("‘전기전자제품’", "‘전기제품’"), ("“Electrical", "“Electric")])
def test_a_rule_text_that_names_an_unknown_category_is_refused(resources: Path, old: str, new: str) -> None:
    edit(resources / "rulebook" / "battery.yaml", old, new)
    assert "not in the taxonomy" in mistakes_in(resources)


def test_a_category_listed_twice_is_refused(resources: Path) -> None:
    edit(resources / "taxonomy.yaml", "ko: 종이팩", "ko: 종이")
    assert "middle category listed twice: 종이" in mistakes_in(resources)


def test_a_minor_category_listed_twice_is_refused(resources: Path) -> None:
    edit(resources / "taxonomy.yaml", "ko: 신문지", "ko: 종이컵")
    assert "minor category listed twice: 종이컵" in mistakes_in(resources)


def test_a_tag_listed_twice_is_refused(resources: Path) -> None:
    edit(resources / "taxonomy.yaml", "id: 라벨_없음", "id: 라벨_있음")
    assert "tag listed twice: 라벨_있음" in mistakes_in(resources)


def test_a_key_written_twice_in_one_file_is_refused(resources: Path) -> None:
    with (resources / "rulebook" / "battery.yaml").open("a", encoding="utf-8") as file:
        file.write("category: 조명제품\n")
    assert "listed twice: category" in mistakes_in(resources)


def test_a_taxonomy_without_a_place_to_abstain_is_refused(resources: Path) -> None:
    text = (resources / "taxonomy.yaml").read_text("utf-8")
    (resources / "taxonomy.yaml").write_text(text.replace(UNCLASSIFIED, "모름"), "utf-8")
    assert f"no middle category {UNCLASSIFIED}" in mistakes_in(resources)


@pytest.mark.parametrize("spoilt", ["", "steps: []\n", "[a, b]: c\n", "ko: {", "\t- x"])
def test_a_file_that_is_no_rule_is_refused_by_name(resources: Path, spoilt: str) -> None:
    (resources / "rulebook" / "battery.yaml").write_text(spoilt, "utf-8")
    assert "battery.yaml: " in mistakes_in(resources)


def test_a_file_that_is_not_utf8_is_refused_by_name(resources: Path) -> None:
    (resources / "rulebook" / "battery.yaml").write_bytes("category: 전지".encode("cp949"))
    assert "battery.yaml: " in mistakes_in(resources)


def test_a_missing_taxonomy_is_refused_by_name(resources: Path) -> None:
    (resources / "taxonomy.yaml").unlink()
    assert "taxonomy.yaml: " in mistakes_in(resources)


def test_a_blank_text_is_refused(resources: Path) -> None:
    edit(resources / "rulebook" / "battery.yaml", "title: 전지 배출 방법", "title: ' '")
    assert "battery.yaml: ko.title" in mistakes_in(resources)


def test_all_mistakes_of_all_files_are_named_at_once(resources: Path) -> None:
    edit(resources / "taxonomy.yaml", "ko: 신문지", "ko: 종이컵")
    edit(resources / "rulebook" / "battery.yaml", "category: 전지", "category: 우주쓰레기")
    (resources / "rulebook" / "paper.yaml").write_text("ko: {", "utf-8")
    found = mistakes_in(resources)
    assert all(name in found for name in ("종이컵", "우주쓰레기", "paper.yaml"))
