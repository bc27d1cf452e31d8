"""When an edit is loaded, when it is refused, and that it is validated once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.knowledge.knowledge import ChangedDuringLoad, Knowledge
from pipeline.knowledge.watch import Watch
from pipeline.types import Locale
from tests.support.resources import copied_resources, edit, mounted

SPOILT = "[messages"


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    return copied_resources(tmp_path)


def watching(resources: Path, build: Callable[[Knowledge], str] = lambda knowledge: knowledge.version) -> Watch[str]:
    knowledge = Knowledge.load(resources)
    return Watch(resources, knowledge, build(knowledge), build)


async def polls(watch: Watch[str], times: int) -> list[bool]:
    return [await watch.reload_if_changed() for _ in range(times)]


def say(resources: Path, word: str) -> None:
    """An edit without a mistake."""
    edit(resources / "prompts/answer.md", "You tell", f"{word}! You tell")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were read and checked; also by the test itself."""
    seen = []
    load = Knowledge.load

    def noted(resources: Path, *, running: Knowledge | None = None) -> Knowledge:
        seen.append(resources)
        return load(resources, running=running)

    monkeypatch.setattr(Knowledge, "load", noted)
    return seen


async def test_nothing_is_read_while_nothing_changes(resources: Path, loads: list[Path]) -> None:
    watch = watching(resources)
    assert await polls(watch, 4) == [False] * 4
    assert len(loads) == 1
    assert not watch.is_stale


async def test_an_edit_is_loaded_when_two_polls_have_found_the_same_files(resources: Path) -> None:
    watch = watching(resources)
    before = watch.knowledge
    say(resources, "Listen")
    assert await polls(watch, 3) == [False, True, False]
    assert watch.knowledge.texts.prompt("answer").startswith("Listen")
    assert watch.current == watch.knowledge.version != before.version
    assert not before.texts.prompt("answer").startswith("Listen")


async def test_an_edit_made_before_the_first_poll_is_not_missed(resources: Path) -> None:
    watch = watching(resources)
    say(resources, "Listen")
    await polls(watch, 2)
    assert watch.knowledge.version == await watch.version_on_disk()


async def test_a_file_still_being_written_is_waited_for(resources: Path) -> None:
    watch = watching(resources)
    for word in ("L", "Li", "Lis"):
        say(resources, word)
        assert await watch.reload_if_changed() is False
    assert watch.is_stale
    assert await watch.reload_if_changed() is True


async def test_half_a_file_that_is_completed_in_time_is_never_refused(resources: Path) -> None:
    path = resources / "messages/en.toml"
    whole = path.read_text("utf-8")
    watch = watching(resources)
    path.write_text(whole[: len(whole) // 2], "utf-8")
    assert await watch.reload_if_changed() is False
    path.write_text(whole.replace("Getting the photo.", "Fetching."), "utf-8")
    assert await polls(watch, 2) == [False, True]
    assert watch.refusal is None
    assert watch.knowledge.texts.message("stage.fetch", Locale.EN) == "Fetching."


async def test_an_edit_with_a_mistake_is_refused_once_and_the_old_version_goes_on(
    resources: Path, loads: list[Path]
) -> None:
    watch = watching(resources)
    before = watch.knowledge
    (resources / "messages/en.toml").write_text(SPOILT)
    assert await polls(watch, 5) == [False, True, False, False, False]
    assert len(loads) == 2
    assert watch.knowledge is before
    assert watch.is_stale
    assert watch.refusal
    assert watch.refusal.detail.startswith("en.toml: ")
    assert watch.refusal.version == await watch.version_on_disk()


async def test_the_same_mistake_written_again_is_not_validated_again(resources: Path, loads: list[Path]) -> None:
    watch = watching(resources)
    (resources / "messages/en.toml").write_text(SPOILT)
    await polls(watch, 2)
    (resources / "messages/en.toml").unlink()
    (resources / "messages/en.toml").write_text(SPOILT)
    assert await polls(watch, 3) == [False] * 3
    assert len(loads) == 2


async def test_a_repaired_edit_is_taken(resources: Path) -> None:
    path = resources / "messages/en.toml"
    whole = path.read_text("utf-8")
    watch = watching(resources)
    path.write_text(SPOILT)
    await polls(watch, 2)
    path.write_text(whole.replace("Getting the photo.", "Fetching."), "utf-8")
    assert await polls(watch, 2) == [False, True]
    assert (watch.refusal, watch.is_stale) == (None, False)


async def test_a_restored_file_ends_the_refusal_and_changes_nothing_else(resources: Path) -> None:
    path = resources / "messages/en.toml"
    whole = path.read_bytes()
    watch = watching(resources)
    before = watch.knowledge
    path.write_text(SPOILT)
    await polls(watch, 2)
    path.write_bytes(whole)
    assert await polls(watch, 3) == [False, True, False]
    assert (watch.refusal, watch.knowledge, watch.is_stale) == (None, before, False)


async def test_another_mistake_is_another_refusal(resources: Path) -> None:
    watch = watching(resources)
    (resources / "messages/en.toml").write_text(SPOILT)
    await polls(watch, 2)
    (resources / "rulebook/paper.yaml").write_text("category: [")
    assert await polls(watch, 2) == [False, True]
    assert watch.refusal
    assert "paper.yaml: " in watch.refusal.detail


async def test_resources_that_go_away_are_refused_and_come_back(resources: Path) -> None:
    watch = watching(resources)
    shutil.move(resources, resources.with_name("elsewhere"))
    assert await polls(watch, 3) == [False, True, False]
    shutil.move(resources.with_name("elsewhere"), resources)
    assert await polls(watch, 2) == [False, True]
    assert watch.refusal is None


async def test_files_that_change_during_the_load_are_loaded_again(
    resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watching(resources)
    say(resources, "Listen")

    def change(*_: Path, **__: Knowledge | None) -> Knowledge:
        raise ChangedDuringLoad

    with monkeypatch.context() as patched:
        patched.setattr(Knowledge, "load", change)
        assert await polls(watch, 3) == [False] * 3
    assert watch.refusal is None
    assert await watch.reload_if_changed() is True


async def test_an_edit_from_which_nothing_can_be_built_is_refused(resources: Path) -> None:
    def build(knowledge: Knowledge) -> str:
        if knowledge.texts.prompt("answer").startswith("Listen"):
            raise RecursionError("too deep")
        return knowledge.version

    watch = watching(resources, build)
    before = watch.current
    say(resources, "Listen")
    await polls(watch, 2)
    assert watch.current == watch.knowledge.version == before
    assert watch.refusal
    assert "RecursionError" in watch.refusal.detail


async def test_a_configmap_that_is_mounted_anew_is_taken_whole(resources: Path, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    mounted(resources, mount)
    watch = watching(mount)
    assert await polls(watch, 2) == [False, False]
    say(resources, "Listen")
    edit(resources / "messages/en.toml", "Getting the photo.", "Fetching.")
    mounted(resources, mount)
    assert await polls(watch, 3) == [False, True, False]
    assert watch.knowledge.texts.prompt("answer").startswith("Listen")
    assert watch.knowledge.texts.message("stage.fetch", Locale.EN) == "Fetching."


async def test_a_folder_reached_by_a_link_is_followed_when_the_link_turns(resources: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(resources, other)
    say(other, "Listen")
    link = tmp_path / "current"
    link.symlink_to(resources)
    watch = watching(link)
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").rename(link)
    assert await polls(watch, 2) == [False, True]
    assert watch.knowledge.version == Knowledge.load(other).version


async def test_a_changed_local_model_needs_a_restart_and_is_shown_as_stale(tmp_path: Path) -> None:
    resources = copied_resources(tmp_path, local_model=True)
    watch = watching(resources)
    before = watch.knowledge.version
    edit(resources / "local_model/model.json", '"temperature"', ' "temperature"')
    assert await polls(watch, 3) == [False] * 3
    assert (watch.is_stale, watch.knowledge.version) == (True, before)
    say(resources, "Listen")
    assert await polls(watch, 2) == [False, True]
    assert watch.knowledge.texts.prompt("answer").startswith("Listen")
    assert watch.is_stale
