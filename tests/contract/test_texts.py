"""What people read stands in resources/messages, and says nothing that cannot be true."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.http.problems import ALL_CODES
from pipeline.knowledge.texts import Texts
from pipeline.settings import RESOURCES
from pipeline.types import Locale

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cli", "client", "pipeline", "workers")

HANGUL = re.compile("[가-힣]")
LONGEST_NAME = 3
"""Syllables: 미분류 and 단계 are names that clients key on, no texts."""

SHOWN = {"user_answer", "disposal_steps", "advice", "title", "message"}
"""Parameters whose value is shown to people."""

EXAMPLES = {"json_schema_extra"}

NOT_FOR_PEOPLE = {"FastAPI", "get_openapi"}
"""Callees whose `title` is for programmers."""

PHOTO = re.compile("사진|이미지|그림|photo|image|picture", re.IGNORECASE)
TRACE = re.compile("trace|추적", re.IGNORECASE)


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def texts_in(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every string but docstrings, here strings that stand for themselves, and examples in the API's description."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    examples = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in EXAMPLES]
    bare |= {id(inner) for node in examples for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node


def shown_texts(tree: ast.AST) -> Iterator[str]:
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) not in NOT_FOR_PEOPLE:
            for keyword in call.keywords:
                if keyword.arg in SHOWN:
                    yield from (text.value for text in texts_in(keyword.value) if isinstance(text.value, str))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_for_people_stands_in_the_code(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    korean = [text for text in texts_in(tree) if len(HANGUL.findall(str(text.value))) > LONGEST_NAME]
    assert [text.value for text in korean] == [], "belongs in resources/messages"
    assert [text for text in shown_texts(tree) if " " in text.strip()] == [], "belongs in resources/messages"


def test_a_text_for_people_in_the_code_would_be_found() -> None:
    tree = ast.parse('Answer(user_answer="Please try again.", title=f"Oh {no} and no")\nx = "다시 해 주세요"')
    assert sorted(shown_texts(tree)) == [" and no", "Oh ", "Please try again."]
    assert any(HANGUL.search(str(text.value)) for text in texts_in(tree))


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("code", [code for code in ALL_CODES if not code.startswith(("source.", "upload."))])
def test_what_can_happen_to_a_question_in_words_speaks_of_no_photo(code: str, locale: Locale) -> None:
    text = Texts.load(RESOURCES).error(code, locale)
    assert not PHOTO.search(f"{text.title} {text.message} {text.advice}")


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("code", ALL_CODES)
def test_no_failure_asks_for_a_trace_id_that_a_chat_answer_lacks(code: str, locale: Locale) -> None:
    text = Texts.load(RESOURCES).error(code, locale)
    assert not TRACE.search(f"{text.message} {text.advice}")


@pytest.mark.parametrize("locale", Locale)
def test_each_code_has_texts_of_its_own(locale: Locale) -> None:
    texts = Texts.load(RESOURCES)
    said = [(texts.error(code, locale).title, texts.error(code, locale).message) for code in ALL_CODES]
    assert len(set(said)) == len(ALL_CODES)
    assert all(texts.error(code, locale).advice for code in ALL_CODES)
