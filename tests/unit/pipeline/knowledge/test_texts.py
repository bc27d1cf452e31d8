"""Prompts and messages."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.texts import MessageFile, Texts, render_answer_prompt, render_vision_prompt
from pipeline.settings import RESOURCES
from pipeline.types import Locale


def texts_of(**messages: str) -> Texts:
    return Texts(prompts={}, messages={Locale.KO: MessageFile(messages=messages, errors={})})


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts.load(RESOURCES)


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(RESOURCES / "messages", tmp_path / "messages")
    shutil.copytree(RESOURCES / "prompts", tmp_path / "prompts")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def mistakes_in(resources: Path) -> str:
    with pytest.raises(ValueError, match="Mistakes in") as caught:
        Texts.load(resources)
    return str(caught.value)


def test_a_message_is_filled_with_its_parameters() -> None:
    texts = texts_of(greeting="{name}, {name} and {other}")
    assert texts.message("greeting", Locale.KO, name="a", other=2) == "a, a and 2"


@given(st.text())
def test_a_parameter_is_never_read_as_a_template(value: str) -> None:
    texts = texts_of(greeting="<{first}|{second}>")
    assert texts.message("greeting", Locale.KO, first=value, second="{first}") == f"<{value}|{{first}}>"


def test_a_parameter_cannot_reach_attributes() -> None:
    texts = texts_of(greeting="{name}")
    assert texts.message("greeting", Locale.KO, name="{name.__class__}") == "{name.__class__}"


def test_a_missing_parameter_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        texts_of(greeting="{name}").message("greeting", Locale.KO)


def test_a_missing_message_is_a_key_error(texts: Texts) -> None:
    with pytest.raises(KeyError):
        texts.message("no.such_message", Locale.KO)


def test_a_missing_error_is_a_key_error(texts: Texts) -> None:
    with pytest.raises(KeyError):
        texts.error("no.such_error", Locale.EN)


def test_a_missing_prompt_is_a_key_error(texts: Texts) -> None:
    with pytest.raises(KeyError):
        texts.prompt("poem")


def test_an_error_differs_by_language(texts: Texts) -> None:
    assert texts.error("internal", Locale.KO) != texts.error("internal", Locale.EN)


def test_a_catalogued_error_without_a_text_is_refused(resources: Path) -> None:
    edit(resources / "messages" / "ko.toml", '[errors."model.account"]', '[errors."model.acount"]')
    found = mistakes_in(resources)
    assert "ko.toml: no error model.account" in found
    assert "en.toml: no error model.acount" in found


def test_a_message_in_one_language_only_is_refused(resources: Path) -> None:
    edit(resources / "messages" / "en.toml", '"stage.fetch"', '"stage.fetched"')
    found = mistakes_in(resources)
    assert "en.toml: no message stage.fetch" in found
    assert "ko.toml: no message stage.fetched" in found


def test_other_parameters_in_another_language_are_refused(resources: Path) -> None:
    edit(resources / "messages" / "en.toml", "{first_step}", "{step}")
    assert "answer.local has other parameters" in mistakes_in(resources)


@pytest.mark.parametrize("spoilt", ["{0}", "{name!r}", "{name.x}", "{{", "}"])
def test_a_brace_that_is_no_parameter_is_refused(resources: Path, spoilt: str) -> None:
    edit(resources / "messages" / "en.toml", '"Getting the photo."', f'"Getting {spoilt}"')
    assert "stage.fetch has a brace" in mistakes_in(resources)


@pytest.mark.parametrize("spoilt", ["[messages", "", "[messages]\na = 1\n[errors]\n", "[errors]\n[errors]\n"])
def test_a_file_that_holds_no_messages_is_refused_by_name(resources: Path, spoilt: str) -> None:
    (resources / "messages" / "en.toml").write_text(spoilt, "utf-8")
    assert "en.toml: " in mistakes_in(resources)


def test_a_missing_language_is_refused_by_name(resources: Path) -> None:
    (resources / "messages" / "en.toml").unlink()
    assert "en.toml" in mistakes_in(resources)


def test_prompts_are_the_same_bytes_on_every_load() -> None:
    def rendered() -> tuple[str, str]:
        texts = Texts.load(RESOURCES)
        return render_vision_prompt(texts, Rulebook.load(RESOURCES)), render_answer_prompt(texts)

    assert rendered() == rendered()


def test_an_unknown_placeholder_in_a_prompt_is_a_key_error() -> None:
    texts = Texts(prompts={"answer": "Say {{SECRET}}"}, messages={})
    with pytest.raises(KeyError):
        render_answer_prompt(texts)
