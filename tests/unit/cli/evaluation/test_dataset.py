"""Labelled photos are found in folders and manifests."""

from pathlib import Path

import pytest

from cli.evaluation.dataset import labelled_photos, spread
from cli.evaluation.records import CannotEvaluate, Labelled


def photos_in(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def found(source: Path, split: str | None = None) -> list[tuple[str, str]]:
    return [(each.photo, each.label) for each in labelled_photos(source, split)]


def test_a_folders_name_is_the_label_of_what_lies_in_it(tmp_path: Path) -> None:
    photos_in(tmp_path, "paper/b.JPG", "paper/more/a.png", "glass/c.jpeg", "glass/d.heic")
    photos_in(tmp_path, "README.md", "top.jpg", "glass/notes.txt", "glass/.hidden.jpg", ".cache/e.jpg")
    assert found(tmp_path) == [
        ("glass/c.jpeg", "glass"),
        ("glass/d.heic", "glass"),
        ("paper/b.JPG", "paper"),
        ("paper/more/a.png", "paper"),
    ]


def test_labels_csv_comes_before_folders_and_knows_splits(tmp_path: Path) -> None:
    photos_in(tmp_path, "x/a.jpg", "x/b.jpg")
    (tmp_path / "labels.csv").write_text("\ufeffpath,label,split\nx/a.jpg,glass,train\nx/b.jpg,paper,val\n")
    assert found(tmp_path) == [("x/a.jpg", "glass"), ("x/b.jpg", "paper")]
    assert found(tmp_path, "val") == [("x/b.jpg", "paper")]
    assert labelled_photos(tmp_path, "val")[0].path == tmp_path / "x/b.jpg"


def test_a_manifest_may_say_path_or_image_and_name_files_that_are_not_there(tmp_path: Path) -> None:
    manifest = tmp_path / "set.jsonl"
    manifest.write_text('{"path": "b.jpg", "label": "유리병"}\n\n{"image": "/abs/a.jpg", "label": "paper", "id": 7}\n')
    assert found(manifest) == [("/abs/a.jpg", "paper"), ("b.jpg", "유리병")]
    assert [each.path for each in labelled_photos(manifest)] == [Path("/abs/a.jpg"), tmp_path / "b.jpg"]


def test_all_mistakes_of_a_manifest_are_named_by_line(tmp_path: Path) -> None:
    manifest = tmp_path / "set.jsonl"
    lines = ['{"path": "a.jpg"}', "no JSON", '{"path": "https://x/a.jpg", "label": "b"}', '{"path": "c", "label": "c"}']
    manifest.write_text("\n".join([*lines, '{"path": "c", "label": "d"}']))
    with pytest.raises(CannotEvaluate) as caught:
        labelled_photos(manifest)
    assert [n for n in range(1, 6) if f"line {n}:" in str(caught.value)] == [1, 2, 3, 5]


@pytest.mark.parametrize("split", ["val", None])
def test_no_photos_at_all_is_a_mistake(tmp_path: Path, split: str | None) -> None:
    (tmp_path / "labels.csv").write_text("path,label,split\n" + ("a.jpg,glass,train\n" if split else ""))
    with pytest.raises(CannotEvaluate):
        labelled_photos(tmp_path, split)


def test_a_split_of_what_has_no_splits_is_a_mistake(tmp_path: Path) -> None:
    photos_in(tmp_path, "glass/a.jpg")
    with pytest.raises(CannotEvaluate):
        labelled_photos(tmp_path, "val")
    (tmp_path / "labels.csv").write_text("path,label\nglass/a.jpg,glass\n")
    with pytest.raises(CannotEvaluate):
        labelled_photos(tmp_path, "val")


def test_a_name_that_is_no_utf8_is_made_readable_and_still_leads_to_its_file(tmp_path: Path) -> None:
    photos_in(tmp_path, "glass/\udcff.jpg")
    [photo] = labelled_photos(tmp_path)
    assert photo.photo.encode()
    assert photo.path.is_file()


def test_a_label_may_hold_what_only_looks_like_a_line_break(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text('{"path": "a.jpg", "label": "a\u2028b"}\n')
    assert found(tmp_path / "set.jsonl") == [("a.jpg", "a\u2028b")]
    (tmp_path / "set.csv").write_text('path,label\n"a,1.jpg","a\nb",of no column\n')
    assert found(tmp_path / "set.csv") == [("a,1.jpg", "a\nb")]


@pytest.mark.parametrize("source", ["nothing-here", "binary.jsonl", "huge.csv"])
def test_what_cannot_be_read_is_a_mistake(tmp_path: Path, source: str) -> None:
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    (tmp_path / "huge.csv").write_text("path,label\n" + "a" * 200_000)
    with pytest.raises(CannotEvaluate):
        labelled_photos(tmp_path / source)


def test_a_limit_takes_from_each_label_in_turn() -> None:
    photos = [Labelled(f"{label}{n}", Path(), label) for label in "abc" for n in range(3 if label == "a" else 1)]
    assert [each.photo for each in spread(photos, 4)] == ["a0", "a1", "b0", "c0"]
    assert spread(photos, 99) == photos
