"""What is checked before resources are used: at the start and before an edit takes effect."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.knowledge.knowledge import ChangedDuringLoad, Knowledge
from pipeline.knowledge.rulebook import Rulebook
from pipeline.settings import RESOURCES
from tests.support.resources import copied_resources, edit


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    return copied_resources(tmp_path)


def mistakes_in(resources: Path) -> str:
    with pytest.raises(ValueError, match="Mistakes in") as caught:
        Knowledge.load(resources)
    return str(caught.value)


def remove_from_both(resources: Path, old: str, new: str) -> None:
    for locale in ("ko", "en"):
        edit(resources / "messages" / f"{locale}.toml", old, new)


def card_that_knows(resources: Path, category: str) -> None:
    shutil.copytree(RESOURCES / "local_model", resources / "local_model", ignore=shutil.ignore_patterns("*.onnx"))
    edit(resources / "local_model/model.json", '"유리병"', f'"{category}"')


def things_that_are(resources: Path, category: str) -> None:
    shutil.copytree(RESOURCES / "local_model", resources / "local_model", ignore=shutil.ignore_patterns("*.onnx"))
    edit(resources / "local_model/things.yaml", "조명제품:", f"{category}:")


def test_an_untouched_copy_is_as_good_as_the_original(resources: Path) -> None:
    assert Knowledge.load(resources).version == Knowledge.load(copied_resources(resources / ".b")).version


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an unknown placeholder": (
        lambda folder: edit(folder / "prompts/vision.md", "{{TAGS}}", "{{TAGS}} {{TAG_LIST}}"),
        "vision.md: there is no {{TAG_LIST}}",
    ),
    "an unknown tag": (
        lambda folder: edit(folder / "prompts/vision.md", "`음식물_묻음`", "`밥풀_묻음`"),
        "vision.md: `밥풀_묻음` is no category and no tag",
    ),
    "a tag that was renamed in the taxonomy and not in the prompt": (
        lambda folder: edit(folder / "taxonomy.yaml", "id: 음식물_묻음", "id: 밥풀_묻음"),
        "vision.md: `음식물_묻음` is no category and no tag",
    ),
    "a placeholder left out": (
        lambda folder: edit(folder / "prompts/vision.md", "{{TAGS}}", ""),
        "vision.md: without {{TAGS}}",
    ),
    "an empty prompt": (lambda folder: (folder / "prompts/answer.md").write_text(" \n"), "answer.md: missing or empty"),
    "no prompt": (lambda folder: (folder / "prompts/answer.md").unlink(), "answer.md: missing or empty"),
    "a prompt that is no text": (
        lambda folder: (folder / "prompts/answer.md").write_bytes(b"\xff\xfe\x00"),
        "answer.md: ",
    ),
    "a message that the code asks for is gone in all languages": (
        lambda folder: remove_from_both(folder, '"answer.unread"', '"answer.unreadable"'),
        "ko.toml: no message answer.unread",
    ),
    "the text of one of the API's own errors is gone in all languages": (
        lambda folder: remove_from_both(folder, '[errors."queue.saturated"]', '[errors."queue.sated"]'),
        "en.toml: no error queue.saturated",
    ),
    "a parameter that the code does not give": (
        lambda folder: remove_from_both(folder, "{first_step}", "{last_step}"),
        "ko.toml: answer.local asks for last_step",
    ),
    "broken YAML": (lambda folder: (folder / "rulebook/paper.yaml").write_text("category: [종이"), "paper.yaml: "),
    "no rule at all": (
        lambda folder: shutil.rmtree(folder / "rulebook"),
        "rulebook: no rule at all",
    ),
    "a category that only the local model knows": (
        lambda folder: card_that_knows(folder, "유리잔"),
        "the local model knows 유리잔",
    ),
    "a category that only the map of things knows": (
        lambda folder: things_that_are(folder, "램프"),
        "the local model knows 램프",
    ),
    "a local model without a card": (lambda folder: (folder / "local_model").mkdir(), "local_model/model.json: "),
}


@pytest.mark.parametrize(("spoil", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_found_and_its_file_named(resources: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(resources)
    assert said in mistakes_in(resources)


def test_mistakes_of_all_files_are_named_at_once(resources: Path) -> None:
    edit(resources / "prompts/vision.md", "{{TAGS}}", "")
    (resources / "messages/en.toml").write_text("[")
    (resources / "rulebook/paper.yaml").write_text("category: [")
    (resources / "prompts/answer.md").write_bytes(b"\xff")
    found = mistakes_in(resources)
    assert [name for name in ("en.toml", "paper.yaml", "answer.md") if name not in found] == []


@pytest.mark.parametrize("is_wrong", [False, True], ids=["right", "wrong"])
def test_files_that_change_while_they_are_read_are_neither_used_nor_judged(
    resources: Path, monkeypatch: pytest.MonkeyPatch, *, is_wrong: bool
) -> None:
    read = Rulebook.load

    def read_while_an_editor_writes(folder: Path) -> Rulebook:
        edit(resources / "prompts/answer.md", "You", "You, you")
        if is_wrong:
            raise ValueError("half a file")
        return read(folder)

    monkeypatch.setattr(Rulebook, "load", read_while_an_editor_writes)
    with pytest.raises(ChangedDuringLoad):
        Knowledge.load(resources)


def test_the_local_model_of_a_running_process_stays_the_one_it_began_with(tmp_path: Path) -> None:
    resources = copied_resources(tmp_path, local_model=True)
    began = Knowledge.load(resources)
    edit(resources / "local_model/model.json", '"temperature"', ' "temperature"')
    assert Knowledge.load(resources, running=began).version == began.version
    assert Knowledge.load(resources).version != began.version
