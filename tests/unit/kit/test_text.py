"""`clean` removes invisible characters, and nothing else."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.text import clean, one_line
from tests.support.injections import INJECTIONS, Injection


@pytest.mark.parametrize(
    "text",
    [
        "깨진 유리컵이랑 라벨 붙은 소주병은 어디에 버려요?",
        unicodedata.normalize("NFD", "한글 자모로 나뉜 글"),
        "줄을\n나눈 글\n\n세 문단",
        "English, naïve café, 漢字, かな, ㄱㄴㄷ ㅋㅋ ㅠㅠ — “quotes” … 3,000원 (50%) <b>&amp;</b>",
        "😀 ❤️ 👍🏽 👩‍🔧 👨‍👩‍👧‍👦 🏳️‍🌈 🇰🇷 1️⃣ #️⃣ ♻️ \U0001fae8",
        "",
    ],
)
def test_visible_text_is_not_changed(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\r\nb\rc\u2028d\u2029e\x85f\x0bg", "a\nb\nc\nd\ne\nf\ng"),
        ("a\tb\xa0c\u3000d", "a b c d"),
        ("\x1b[31mred\x00 \x9b2J\x07", " [31mred   2J "),
        ("유\u200b리\u200d병\ufeff\u202e\u2066", "유리병"),
        ("캔\u3164\u1160\u034f\ufe0f\U000e0101", "캔"),
        ("🏴\U000e0067\U000e0062\U000e007f", "🏴"),
        ("😀\ufe0f\ufe0f\ufe00", "😀\ufe0f"),
        ("a\ufe0f\u200d😀\u200d", "a😀"),
        ("\ud83d half \ue000 private", " half  private"),
    ],
)
def test_invisible_characters_are_removed(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(st.text(st.characters() | st.sampled_from("\u200d\ufe0f\ufe0e\r\n\u2028😀❤1<|>\u202e\u3164"), max_size=60))
def test_cleaning_is_idempotent(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert len(cleaned) <= len(text)
    assert hidden_in(cleaned) == []
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("injection", INJECTIONS, ids=lambda each: each.id)
def test_no_injection_hides_anything(injection: Injection) -> None:
    assert hidden_in(clean(injection.text)) == []


def hidden_in(text: str) -> list[str]:
    """By Unicode's own categories; an emoji's joiner is seen."""
    return [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
            and char not in "\n\u200d"]  # fmt: skip


def test_there_are_injections_of_many_kinds_in_both_languages() -> None:
    by_language = [each.language for each in INJECTIONS]
    assert len(INJECTIONS) >= 60
    assert by_language.count("ko") >= 25
    assert by_language.count("en") >= 25
    assert len({each.id for each in INJECTIONS}) == len(INJECTIONS) == len({each.text for each in INJECTIONS})
    assert len({each.kind for each in INJECTIONS}) >= 15
