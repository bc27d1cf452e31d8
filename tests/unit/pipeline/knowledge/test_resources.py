"""The shipped resources agree with one another, with the contract and with the error catalogue."""

import re
import unicodedata
from typing import Any
from urllib.parse import urlsplit

import pytest

from api.http.problems import ALL_CODES
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.knowledge.texts import Texts, render_answer_prompt, render_vision_prompt
from pipeline.settings import RESOURCES
from pipeline.types import Locale, Stage

MAJORS = [
    "재활용폐기물",
    "일반종량제폐기물",
    "불연성종량제폐기물",
    "음식물류폐기물",
    "대형폐기물",
    "공사장생활폐기물",
    "생활계유해폐기물",
    "미분류",
]
RECYCLABLE = [
    "종이",
    "종이팩",
    "무색페트병",
    "플라스틱류",
    "비닐류",
    "발포합성수지",
    "유리병",
    "금속류",
    "의류및원단",
    "전지",
    "조명제품",
    "전기전자제품",
]
rulebook = Rulebook.load(RESOURCES)
texts = Texts.load(RESOURCES)


def lines(rule: dict[str, Any]) -> list[str]:
    return [
        rule["title"],
        rule["summary"],
        *rule["steps"],
        *rule["cautions"],
        *rule["not_this"],
        *rule["check"],
        rule["source"]["title"],
    ]


def rule(middle: str, locale: Locale) -> dict[str, Any]:
    found = rulebook.rule(middle, locale)
    assert found is not None
    return found


def test_the_major_categories_are_those_that_clients_key_on() -> None:
    assert [major.ko for major in rulebook.majors] == MAJORS


def test_the_middle_categories_are_those_that_clients_key_on() -> None:
    assert list(rulebook.middles()) == RECYCLABLE + MAJORS[1:]
    assert all(rulebook.major_of(middle).ko == "재활용폐기물" for middle in RECYCLABLE)
    assert all(rulebook.major_of(major).ko == major for major in MAJORS[1:])


@pytest.mark.parametrize("middle", rulebook.middles())
def test_every_category_has_minor_categories(middle: str) -> None:
    assert len(rulebook.minors_of(middle)) >= 2


def test_there_are_about_eighty_tags_in_groups() -> None:
    assert 75 <= len(rulebook.tags) <= 90
    assert all(len(group.tags) >= 4 for group in rulebook.tag_groups)


def test_every_category_has_exactly_one_rule() -> None:
    stems = sorted(path.stem for path in (RESOURCES / "rulebook").iterdir())
    assert stems == sorted(rulebook.middle(middle).id for middle in rulebook.middles())
    assert all(rulebook.rule(middle, locale) for middle in rulebook.middles() for locale in Locale)


@pytest.mark.parametrize("middle", rulebook.middles())
def test_a_rule_lies_in_the_file_of_its_category(middle: str) -> None:
    path = RESOURCES / "rulebook" / f"{rulebook.middle(middle).id}.yaml"
    assert path.read_text("utf-8").startswith(f"category: {middle}\n")


@pytest.mark.parametrize("middle", rulebook.middles())
def test_a_rule_says_the_same_in_both_languages(middle: str) -> None:
    korean, english = rule(middle, Locale.KO), rule(middle, Locale.EN)
    for field in ("steps", "cautions", "not_this", "check"):
        assert len(korean[field]) == len(english[field]), field
    assert korean["source"]["url"] == english["source"]["url"]


@pytest.mark.parametrize("middle", rulebook.middles())
def test_a_rule_points_to_the_same_other_categories_in_both_languages(middle: str) -> None:
    english_name = {name: rulebook.middle(name).en for name in rulebook.middles()}
    korean, english = rule(middle, Locale.KO), rule(middle, Locale.EN)
    for field in ("steps", "cautions", "not_this", "check"):
        for in_korean, in_english in zip(korean[field], english[field], strict=True):
            named = [english_name[name] for name in re.findall("‘([^’]*)’", in_korean)]
            assert sorted(named) == sorted(re.findall("“([^”]*)”", in_english)), in_english


@pytest.mark.parametrize("middle", rulebook.middles())
@pytest.mark.parametrize("locale", Locale)
def test_a_rule_is_short_plain_text_without_repeats(middle: str, locale: Locale) -> None:
    document = rule(middle, locale)
    assert 3 <= len(document["steps"]) <= 6
    texts_of_rule = lines(document)
    assert len(set(texts_of_rule)) == len(texts_of_rule)
    assert not [line for line in texts_of_rule if re.search(r"[<>*#`{}\n]", line) or len(line) > 120]


@pytest.mark.parametrize("middle", rulebook.middles())
def test_a_rule_is_written_in_its_language(middle: str) -> None:
    assert not [line for line in lines(rule(middle, Locale.KO)) if not re.search("[가-힣]", line)]
    assert not [line for line in lines(rule(middle, Locale.EN)) if not re.search("[a-z]{3}", line)]


@pytest.mark.parametrize("middle", rulebook.middles())
def test_a_rule_names_a_source_that_can_be_opened(middle: str) -> None:
    url = urlsplit(rule(middle, Locale.KO)["source"]["url"])
    assert url.scheme == "https"
    assert url.netloc
    assert url.geturl().isascii()


def test_every_resource_text_is_composed_unicode() -> None:
    paths = [path for path in RESOURCES.rglob("*") if path.suffix in {".yaml", ".toml", ".md"}]
    assert len(paths) > 20
    decomposed = [path for path in paths if not unicodedata.is_normalized("NFC", path.read_text("utf-8"))]
    assert not decomposed


def test_ids_are_ascii_and_names_have_a_twin() -> None:
    middles = [middle for major in rulebook.majors for middle in major.middles]
    ids = [
        *(major.id for major in rulebook.majors),
        *(middle.id for middle in middles),
        *(group.id for group in rulebook.tag_groups),
    ]
    assert not [each for each in ids if not re.fullmatch("[a-z_]+", each)]
    names = [
        *((major.ko, major.en) for major in rulebook.majors),
        *((middle.ko, middle.en) for middle in middles),
        *((minor.ko, minor.en) for middle in middles for minor in middle.minors),
        *((group.ko, group.en) for group in rulebook.tag_groups),
        *((tag.ko, tag.en) for group in rulebook.tag_groups for tag in group.tags),
    ]
    hangul = re.compile("[가-힣]")
    assert not [ko for ko, en in names if hangul.search(en) or not hangul.search(ko)]


def test_every_name_that_a_prompt_quotes_exists() -> None:
    known = {*rulebook.middles(), *rulebook.tags}
    quoted = re.findall("`([^`]+)`", texts.prompt("vision") + texts.prompt("answer"))
    korean = [name for name in quoted if re.search("[가-힣]", name)]
    assert len(korean) > 10
    assert set(korean) <= known


def test_every_category_and_tag_is_offered_in_the_vision_prompt() -> None:
    prompt = render_vision_prompt(texts, rulebook)
    for middle in rulebook.middles():
        assert f"> {middle} (" in prompt
        assert all(minor in prompt for minor in rulebook.minors_of(middle))
    assert all(prompt.count(f"\n- {tag}: ") == 1 for tag in rulebook.tags)


def test_rendered_prompts_have_no_placeholder_left() -> None:
    assert "{{" not in render_vision_prompt(texts, rulebook) + render_answer_prompt(texts)


def test_the_vision_prompt_begins_with_its_constant_part() -> None:
    before_the_lists = texts.prompt("vision").split("{{", 1)[0]
    assert render_vision_prompt(texts, rulebook).startswith(before_the_lists)


@pytest.mark.parametrize("locale", Locale)
def test_every_error_code_has_its_own_text(locale: Locale) -> None:
    assert set(texts.messages[locale].errors) == set(ALL_CODES)
    errors = list(texts.messages[locale].errors.values())
    for field in ("title", "message", "advice"):
        written = [getattr(error, field) for error in errors]
        assert all(text == text.strip() and text for text in written)
        assert field == "advice" or len(set(written)) == len(written)


@pytest.mark.parametrize("locale", Locale)
def test_every_stage_and_outcome_has_a_message(locale: Locale) -> None:
    keys = [f"stage.{stage}" for stage in Stage] + [
        f"result.{outcome}" for outcome in ("completed", "failed", "cancelled")
    ]
    assert all(texts.message(key, locale) for key in keys)


@pytest.mark.parametrize("locale", Locale)
def test_the_answers_without_a_language_model_can_be_filled(locale: Locale) -> None:
    answer = texts.message("answer.local", locale, category="C", summary="S.", first_step="F.")
    assert all(part in answer for part in ("C", "S.", "F."))
    assert "A, B" in texts.message("answer.unsure", locale, candidates="A, B")
    assert texts.message("answer.unknown", locale)


@pytest.mark.parametrize("locale", Locale)
def test_the_answers_to_questions_in_words_can_be_filled(locale: Locale) -> None:
    answer = texts.message("chat.thing", locale, name="N", category="C", summary="S.", first_step="F.")
    assert all(part in answer for part in ("N", "C", "S.", "F."))
    whole = [texts.message(f"chat.{key}", locale) for key in ("several", "unknown_thing", "also_unknown", "not_waste")]
    assert len(set(whole)) == 4


@pytest.mark.parametrize("locale", Locale)
def test_messages_are_plain_text(locale: Locale) -> None:
    file = texts.messages[locale]
    written = [*file.messages.values(), *(v for e in file.errors.values() for v in e.model_dump().values())]
    assert not [text for text in written if re.search(r"[<>*`\n]", text)]


def test_an_abstention_has_advice_in_place_of_a_rule() -> None:
    assert rule(UNCLASSIFIED, Locale.KO)["steps"]
