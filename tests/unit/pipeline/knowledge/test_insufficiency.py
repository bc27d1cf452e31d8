"""Situation tags → what is still missing."""

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.knowledge.insufficiency import Insufficiencies, message_key
from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.texts import Texts
from pipeline.settings import RESOURCES
from pipeline.types import Locale

rulebook = Rulebook.load(RESOURCES)
texts = Texts.load(RESOURCES)
rules = Insufficiencies.load(RESOURCES, rulebook, texts)


@pytest.mark.parametrize(
    ("category", "tags", "codes"),
    [
        ("플라스틱류", ["내용물_남음"], ["contents_left"]),
        ("플라스틱류", ["라벨_있음", "펌프_있음"], ["label_on", "pump_on"]),
        ("유리병", ["다른_재질_뚜껑", "뚜껑_닫힘"], ["cap_of_another_material"]),
        ("유리병", ["뚜껑_닫힘"], ["cap_on"]),
        ("유리병", ["깨짐"], ["broken_glass"]),
        ("조명제품", ["깨짐"], ["broken_lamp"]),
        ("종이", ["기름_묻음"], ["soiled_paper"]),
        ("발포합성수지", ["테이프_붙음", "송장_붙음"], ["tape_on", "waybill_on"]),
        ("금속류", ["가스_남음_의심"], ["gas_left"]),
        ("전지", ["부풀어_오름"], ["swollen_or_leaking"]),
        ("의류및원단", ["젖음", "찢어짐"], ["worn_cloth", "wet"]),
        ("음식물류폐기물", ["액체_남음"], ["water_left"]),
    ],
)
def test_a_tag_makes_something_missing(category: str, tags: list[str], codes: list[str]) -> None:
    assert list(rules.missing(category, tags)) == codes


@pytest.mark.parametrize(
    ("category", "tags"),
    [
        ("무색페트병", ["뚜껑_닫힘", "무색_투명"]),
        ("유리병", ["보증금_대상", "뚜껑_닫힘"]),
        ("플라스틱류", ["내용물_비움", "깨끗함"]),
        ("일반종량제폐기물", ["기름_묻음"]),
        ("무색페트병", []),
    ],
)
def test_what_does_no_harm_is_not_missing(category: str, tags: list[str]) -> None:
    assert rules.missing(category, tags) == ()


def test_a_tag_that_says_it_is_done_takes_the_insufficiency_away() -> None:
    assert "contents_left" not in rules.missing("플라스틱류", ["내용물_남음", "내용물_비움"])


def test_the_order_of_the_tags_does_not_matter() -> None:
    tags = ["라벨_있음", "액체_남음", "펌프_있음"]
    assert rules.missing("플라스틱류", tags) == rules.missing("플라스틱류", reversed(tags))


@pytest.mark.parametrize("locale", Locale)
def test_every_code_has_a_text_of_its_own(locale: Locale) -> None:
    written = [texts.message(message_key(code), locale) for code in rules.codes]
    assert len(set(written)) == len(written)


def test_every_text_belongs_to_a_code() -> None:
    keys = {key for key in texts.messages[Locale.KO].messages if key.startswith("insufficiency.")}
    assert keys == {message_key(code) for code in rules.codes}


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    shutil.copy(RESOURCES / "insufficiencies.yaml", tmp_path)
    file = yaml.safe_load((tmp_path / "insufficiencies.yaml").read_text("utf-8"))
    file["groups"]["containers"].append("우주쓰레기")
    file["rules"] += [
        {"id": "label_on", "tags": ["라벨_잇음"], "groups": ["nowhere"]},
        {"id": "no_text", "tags": ["깨짐"]},
    ]
    (tmp_path / "insufficiencies.yaml").write_text(yaml.safe_dump(file, allow_unicode=True), "utf-8")
    with pytest.raises(ValueError, match="Mistakes in") as caught:
        Insufficiencies.load(tmp_path, rulebook, texts)
    for part in ("우주쓰레기", "listed twice: label_on", "라벨_잇음", "nowhere", "no category", "no message insuff"):
        assert part in str(caught.value)
