"""Fingerprints and stamps of the resources, in plain folders and in those that Kubernetes mounts."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.knowledge.fingerprint import file_stamps, fingerprints, pipeline_version
from pipeline.settings import RESOURCES


def change_a_byte(folder: Path) -> None:
    (folder / "rulebook" / "a.yaml").write_bytes(b"b")


def add_a_file(folder: Path) -> None:
    (folder / "new.yaml").write_bytes(b"")


def rename_a_file(folder: Path) -> None:
    (folder / "rulebook" / "a.yaml").rename(folder / "rulebook" / "b.yaml")


def remove_a_file(folder: Path) -> None:
    (folder / "local_model" / "model.onnx").unlink()


def swap_two_files(folder: Path) -> None:
    rule, model = folder / "rulebook" / "a.yaml", folder / "local_model" / "model.onnx"
    rule_bytes = rule.read_bytes()
    rule.write_bytes(model.read_bytes())
    model.write_bytes(rule_bytes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in {"rulebook/a.yaml": b"a", "local_model/model.onnx": b"\0\xff"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    "change", [change_a_byte, add_a_file, rename_a_file, remove_a_file, swap_two_files], ids=lambda f: f.__name__
)
def test_the_version_changes_with_any_file(folder: Path, change: Callable[[Path], None]) -> None:
    before = pipeline_version(fingerprints(folder))
    change(folder)
    assert pipeline_version(fingerprints(folder)) != before


def test_hidden_files_and_caches_have_no_fingerprint(folder: Path) -> None:
    before = fingerprints(folder)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"x")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert fingerprints(folder) == before


def test_a_fingerprint_does_not_depend_on_where_the_folder_lies(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path.parent / f"{tmp_path.name}-.moved"
    shutil.copytree(folder, moved)
    assert fingerprints(moved) == fingerprints(folder)


def test_fingerprints_are_keyed_by_relative_path(folder: Path) -> None:
    assert fingerprints(folder) == {
        "local_model/model.onnx": "06eb7d6a69ee",
        "rulebook/a.yaml": "ca978112ca1b",
    }


def test_the_version_does_not_depend_on_the_order_of_the_fingerprints() -> None:
    assert pipeline_version({"a": "1", "b": "2"}) == pipeline_version({"b": "2", "a": "1"}) == "1a04f75bd070"


def test_a_mounted_configmap_has_the_fingerprints_of_its_files(tmp_path: Path, folder: Path) -> None:
    """Kubernetes links each name at the top, folders too, into `..data`, a link that one rename turns elsewhere."""
    mount = tmp_path / "mount"
    shutil.copytree(folder, mount / "..2026_01", ignore=shutil.ignore_patterns("mount"))
    (mount / "..data").symlink_to("..2026_01")
    for name in ("rulebook", "local_model"):
        (mount / name).symlink_to(f"..data/{name}")
    assert fingerprints(mount) == {"local_model/model.onnx": "06eb7d6a69ee", "rulebook/a.yaml": "ca978112ca1b"}


def test_a_link_to_a_folder_above_is_not_followed_for_ever(folder: Path) -> None:
    before = fingerprints(folder)
    (folder / "rulebook" / "again").symlink_to(folder)
    assert fingerprints(folder) == before


def test_what_editors_leave_behind_is_no_resource(folder: Path) -> None:
    before = fingerprints(folder)
    for name in ("a.yaml~", "#a.yaml#", ".a.yaml.swp"):
        (folder / "rulebook" / name).write_bytes(b"half")
    assert fingerprints(folder) == before


def test_resources_without_a_local_model_have_the_shipped_one(folder: Path) -> None:
    shutil.rmtree(folder / "local_model")
    shipped = fingerprints(RESOURCES)["local_model/model.onnx"]
    assert fingerprints(folder)["local_model/model.onnx"] == shipped


def replace_keeping_size_and_time(path: Path) -> None:
    before = path.stat()
    beside = path.with_name("new")
    beside.write_bytes(b"b")
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.rename(path)


@pytest.mark.parametrize("change", [change_a_byte, add_a_file, remove_a_file], ids=lambda f: f.__name__)
def test_stamps_change_with_any_file(folder: Path, change: Callable[[Path], None]) -> None:
    (folder / "rulebook" / "a.yaml").write_bytes(b"aa")
    before = file_stamps(folder)
    change(folder)
    assert file_stamps(folder) != before


def test_stamps_tell_a_file_that_was_replaced_by_one_of_the_same_size_and_time(folder: Path) -> None:
    before = file_stamps(folder)
    replace_keeping_size_and_time(folder / "rulebook" / "a.yaml")
    assert file_stamps(folder) != before


def test_stamps_stay_the_same_while_nothing_changes(folder: Path) -> None:
    assert file_stamps(folder) == file_stamps(folder)
