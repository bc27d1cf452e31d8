"""Reading questions without a model: names, states, and what the things of one question are to one another."""

import threading
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.lexicon import Lexicon
from pipeline.knowledge.rulebook import Rulebook
from pipeline.models.local.question import MAX_CHARACTERS_ON_LOOP, LocalText
from pipeline.questions.mentions import MAX_QUESTION_CHARS
from pipeline.questions.reader import LexiconReader
from pipeline.questions.situations import find_situation_tags
from pipeline.settings import RESOURCES
from pipeline.types import KnownThings, Locale, NamedThing, NotWaste, UnknownThing, Usage

rulebook = Rulebook.load(RESOURCES)
grammar = Grammar.load(RESOURCES, rulebook)
lexicon_reader = LexiconReader(Lexicon.load(RESOURCES, rulebook), grammar, rulebook)


def things(question: str, locale: Locale = Locale.KO) -> tuple[NamedThing, ...]:
    reading = lexicon_reader.read(question, locale)
    assert isinstance(reading, KnownThings), reading
    return reading.things


def categories(question: str) -> list[str]:
    return [thing.classification.middle_category for thing in things(question)]


@pytest.mark.parametrize(
    ("question", "category", "tags"),
    [
        ("깨진 유리컵은 어떻게 버려요?", "불연성종량제폐기물", ["깨짐"]),
        ("피자 박스에 기름 묻었어", "일반종량제폐기물", ["기름_묻음"]),
        ("보조배터리", "전지", []),
        ("스티로폼 박스 테이프 붙어있음", "발포합성수지", ["테이프_붙음"]),
        ("우유팩 뚜껑", "종이팩", ["다른_재질_뚜껑"]),
        ("How do I throw away a greasy pizza box?", "일반종량제폐기물", ["기름_묻음"]),
        ("water bottle with the label still on", "무색페트병", ["라벨_있음"]),
    ],
)
def test_a_thing_is_found_with_its_state(question: str, category: str, tags: list[str]) -> None:
    (thing,) = things(question)
    assert thing.classification.middle_category == category
    assert list(thing.situation_tags) == tags


@pytest.mark.parametrize("ending", ["", "은", "이랑요", "에서요?", "인데요", "버리는법", "들은 어떻게 해요"])
def test_a_korean_ending_after_a_name_does_not_matter(ending: str) -> None:
    assert categories(f"건전지{ending}") == ["전지"]


@pytest.mark.parametrize("question", ["복분자와인병", "할머니표 참기름병", "땅콩 잼병"])
def test_the_last_part_of_a_compound_is_the_thing(question: str) -> None:
    assert categories(question) == ["유리병"]


@pytest.mark.parametrize("question", ["스티로퐁", "보조배더리", "후라이팽", "형광둥", "refridgerator", "umbrela"])
def test_a_misspelt_name_is_recognised_and_less_sure(question: str) -> None:
    (thing,) = things(question)
    assert thing.confidence < 0.95


@pytest.mark.parametrize("question", ["짐볼링기", "크랩톤 어떻게 버려요", "zorbatron", "이거 어떻게 버려?", ""])
def test_an_unknown_name_is_not_taken_for_a_known_one(question: str) -> None:
    assert lexicon_reader.read(question, Locale.KO) == UnknownThing()


@pytest.mark.parametrize("question", ["튀김하고 남은 식용유", "연탄재", "old car battery", "하우스 비닐 버리는 곳"])
def test_a_thing_that_no_category_fits_is_unknown_rather_than_wrong(question: str) -> None:
    assert lexicon_reader.read(question, Locale.KO) == UnknownThing()


def test_a_thing_that_no_category_fits_is_unknown_beside_known_ones() -> None:
    reading = lexicon_reader.read("식용유랑 신문지", Locale.KO)
    assert isinstance(reading, KnownThings)
    assert reading.has_unknown
    assert [thing.name for thing in reading.things] == ["신문지"]


@pytest.mark.parametrize("question", ["안녕하세요", "피자 맛집 추천해줘", "what's the weather?", "write me a poem"])
def test_a_question_that_is_not_about_waste_is_recognised(question: str) -> None:
    assert lexicon_reader.read(question, Locale.KO) == NotWaste()


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("캔이랑 소주병", ["금속류", "유리병"]),
        ("건전지하고 형광등은 어디에", ["전지", "조명제품"]),
        ("책상, 의자, 냉장고", ["대형폐기물", "대형폐기물", "전기전자제품"]),
        ("glass bottles and cans", ["유리병", "금속류"]),
    ],
)
def test_several_things_are_each_named(question: str, named: list[str]) -> None:
    assert categories(question) == named


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("소주병, 짐볼링기, 신문지", ["유리병", "종이"]),
        ("소주병이랑 짐볼링기는 어떻게 버려요?", ["유리병"]),
        ("짐볼링기랑 소주병", ["유리병"]),
        ("소주병하고 낡은 짐볼링기", ["유리병"]),
        ("소주병 어떻게 버려요? 짐볼링기는요?", ["유리병"]),
        ("라벨 붙은 소주병이랑 짐볼링기 버리는 법", ["유리병"]),
        ("soju bottle, zorbatron, newspaper", ["유리병", "종이"]),
        ("How do I throw away a soju bottle and a zorbatron?", ["유리병"]),
    ],
)
def test_an_unknown_thing_beside_known_ones_is_noticed_and_not_named(question: str, named: list[str]) -> None:
    reading = lexicon_reader.read(question, Locale.KO)
    assert isinstance(reading, KnownThings)
    assert reading.has_unknown
    assert [thing.classification.middle_category for thing in reading.things] == named
    assert "짐볼링기" not in reading.model_dump_json()
    assert "zorbatron" not in reading.model_dump_json()


@pytest.mark.parametrize(
    "question",
    [
        "소주병, 맥주캔, 신문지",
        "안녕하세요, 소주병 어떻게 버려요?",
        "급해요, 소주병이랑 신문지요",
        "소주병, 라벨 안 뗐어요",
        "텔레비전, 짐볼링",  # Its maker, for all we know.
        "엄마랑 마신 소주병",
        "김장하고 남은 배추",
        "강남구, 소주병이랑 신문지 어디에 버려요?",
        "짐볼링이랑 크랩톤 담았던 유리병",
        "짐볼링이랑 크랩톤봉지",  # The bag of both.
        "냄비(짐볼링), 프라이팬",
        "냄비（짐볼링）, 프라이팬",
        "umbrella, rusty and broken",
        "newspapers and old clothes, please",
        "my wife and I drank it, where does the wine bottle go?",
    ],
)
def test_text_beside_known_things_that_may_be_no_thing_is_ignored(question: str) -> None:
    reading = lexicon_reader.read(question, Locale.KO)
    assert isinstance(reading, KnownThings)
    assert not reading.has_unknown


@pytest.mark.parametrize(
    ("question", "category"),
    [
        ("고기 쌌던 랩", "일반종량제폐기물"),
        ("리모컨에서 뺀 건전지", "전지"),
        ("참기름 다 쓴 병", "유리병"),
        ("커피가 남은 종이컵", "종이"),
        ("칫솔은 플라스틱인가요?", "일반종량제폐기물"),
        ("우유곽은 종이랑 같이 버려?", "종이팩"),
        ("스텐 그릇", "금속류"),
        ("콜라 페트병", "무색페트병"),
        ("택배 박스(스티로폼)", "발포합성수지"),
        ("플라스틱 재질의 머리빗", "플라스틱류"),
        ("수납장(플라스틱 재질)", "대형폐기물"),
        ("축구공", "일반종량제폐기물"),
        ("스마트폰 거치대", "금속류"),
        ("bubble wrap from a parcel", "비닐류"),
        ("jam jar with a metal lid", "유리병"),
    ],
)
def test_context_parts_and_bins_are_no_things_of_their_own(question: str, category: str) -> None:
    assert categories(question) == [category]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("라벨 뗐어", ["라벨_없음"]),
        ("라벨 안 뗐어", ["라벨_있음"]),
        ("라벨이 붙어 있어요", ["라벨_있음"]),
        ("기름은 묻지 않았어요", []),
        ("안 헹궜어요", ["헹굼_필요"]),
        ("헹궜어요", ["깨끗함"]),
        ("not greasy", []),
        ("the label is off", ["라벨_없음"]),
        ("통에 내용물이 남았어", ["내용물_남음"]),
    ],
)
def test_a_negated_state_is_the_opposite_or_none(text: str, tags: list[str]) -> None:
    assert [mention.tag for mention in find_situation_tags(text, grammar)] == tags


def test_each_situation_tag_goes_to_the_thing_that_it_describes() -> None:
    broken, labelled = things("깨진 유리컵이랑 라벨 붙은 소주병")
    assert (broken.situation_tags, labelled.situation_tags) == (("깨짐",), ("라벨_있음",))


def test_things_are_named_in_the_language_of_the_answer() -> None:
    assert things("umbrella", Locale.KO)[0].name == "우산"
    assert things("우산", Locale.EN)[0].name == "umbrella"


def test_a_state_that_is_part_of_a_name_is_of_no_other_thing() -> None:
    reading = lexicon_reader.read("a broken glass and a soju bottle", Locale.EN)
    assert isinstance(reading, KnownThings)
    assert [thing.situation_tags for thing in reading.things] == [("깨짐",), ()]
    assert reading.things[1].classification.middle_category == "유리병"


async def test_the_adapter_returns_the_result_of_the_lexicon_reader() -> None:
    reader = LocalText(lexicon_reader)
    assert reader.name == "local/words"
    assert await reader.read("보조배터리", Locale.KO) == (lexicon_reader.read("보조배터리", Locale.KO), Usage())


class ThreadRecorder:
    """A reader that records on which thread it is called."""

    def __init__(self) -> None:
        self.thread = 0

    def read(self, _question: str, _locale: Locale) -> NotWaste:
        self.thread = threading.get_ident()
        return NotWaste()


@pytest.mark.parametrize(
    ("letters", "is_on_the_loop"), [(MAX_CHARACTERS_ON_LOOP, True), (MAX_CHARACTERS_ON_LOOP + 1, False)]
)
async def test_the_loop_goes_on_while_a_long_question_is_read(letters: int, *, is_on_the_loop: bool) -> None:
    recorder = ThreadRecorder()
    await LocalText(cast("LexiconReader", recorder)).read("가" * letters, Locale.KO)
    assert (recorder.thread == threading.get_ident()) == is_on_the_loop


POLITE = "안녕하세요, 늘 친절하게 알려 주셔서 정말 고맙습니다. "


@pytest.mark.parametrize("question", [POLITE * 30 + "유리병 어떻게 버려요?", "유리병 어떻게 버려요? " + POLITE * 30])
def test_both_ends_of_a_long_question_are_read(question: str) -> None:
    assert categories(question) == ["유리병"]


@pytest.mark.parametrize(
    "question",
    [
        "음" * (MAX_QUESTION_CHARS // 2 - 3) + " 우산" + "꽂이 " + "음" * MAX_QUESTION_CHARS,
        "음" * MAX_QUESTION_CHARS + " 고무" + "장갑 " + "음" * (MAX_QUESTION_CHARS // 2 - 3),
    ],
)
def test_a_long_question_is_not_read_as_half_words(question: str) -> None:
    assert lexicon_reader.read(question, Locale.KO) == UnknownThing()


def test_a_question_that_is_not_read_whole_may_be_about_waste() -> None:
    assert lexicon_reader.read(POLITE * 12 + "유리병 어떻게 버려요? " + POLITE * 12, Locale.KO) == UnknownThing()
    assert lexicon_reader.read(POLITE * 2, Locale.KO) == NotWaste()


@given(st.text(max_size=600))
def test_no_text_is_too_strange_to_be_read(question: str) -> None:
    lexicon_reader.read(question, Locale.KO)


@given(st.text(max_size=40))
def test_a_name_in_a_reading_is_ours_and_never_the_users_own_text(noise: str) -> None:
    reading = lexicon_reader.read(f"<b>{noise}</b> 유리컵", Locale.KO)
    if isinstance(reading, KnownThings):
        assert all(name not in thing.name for thing in reading.things for name in "<>&\"'")
