"""Labelled photos from a folder of folders, a labels.csv or a JSONL manifest. Opens no photo."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, ValidationError

from cli.evaluation.records import CannotEvaluate, Labelled
from pipeline.storage import MEDIA_TYPES
from pipeline.types import VersionTolerant

LABELS = "labels.csv"
SUFFIXES = frozenset({*(f".{suffix}" for suffix in MEDIA_TYPES), ".jpeg"})
"""Suffixes by which photos are found in a label's folder. A manifest may name any file."""

MAX_NAMED_MISTAKES = 20


class Entry(VersionTolerant):
    """One row or line of a manifest. A relative path starts at the manifest's folder."""

    path: str = Field(min_length=1, validation_alias=AliasChoices("path", "image"))
    label: str = Field(min_length=1)
    split: str | None = None


def labelled_photos(source: Path, split: str | None = None) -> list[Labelled]:
    """Sorted by name. Raises CannotEvaluate that lists the mistakes of a manifest, or if there is no photo."""
    manifest = source / LABELS if source.is_dir() else source
    if not source.exists():
        raise CannotEvaluate(f"no such folder or manifest: {source}")
    if source.is_dir() and not manifest.is_file():
        if split is not None:
            raise CannotEvaluate(f"--split needs a manifest with a column `split`, such as {manifest}")
        photos = list(_in_folders(source))
    else:
        photos = list(_in_manifest(manifest, split))
    if not photos:
        wanted = f" of the split {split}" if split is not None else ""
        raise CannotEvaluate(f"there are no labelled photos{wanted} in {source}")
    return sorted(photos, key=lambda each: each.photo)


def spread(photos: Iterable[Labelled], limit: int) -> list[Labelled]:
    """At most `limit` photos, taken from each label in turn, so that a small sample has all labels. Deterministic."""
    by_label: dict[str, list[Labelled]] = {}
    for each in photos:
        by_label.setdefault(each.label, []).append(each)
    round_robin = chain.from_iterable(zip_longest(*by_label.values()))
    taken = [each for each in round_robin if each is not None][:limit]
    return sorted(taken, key=lambda each: each.photo)


def _in_folders(root: Path) -> Iterator[Labelled]:
    for folder in root.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            for path in folder.rglob("*"):
                if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
                    yield Labelled(_readable(path.relative_to(root).as_posix()), path, _readable(folder.name))


def _in_manifest(manifest: Path, split: str | None) -> Iterator[Labelled]:
    try:
        text = manifest.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotEvaluate(f"{manifest} cannot be read: {error}") from error
    entries: dict[str, Entry] = {}
    mistakes = []
    for number, raw in _rows(text) if manifest.suffix.lower() == ".csv" else numbered_lines(text):
        try:
            entry = Entry.model_validate(raw) if isinstance(raw, Mapping) else Entry.model_validate_json(raw)
        except ValidationError as error:
            mistakes.append(f"line {number}: {'; '.join(each['msg'] for each in error.errors(include_input=False))}")
            continue
        if "://" in entry.path:
            mistakes.append(f"line {number}: a link: photos are read from disk")
        if entries.setdefault(entry.path, entry).label != entry.label:
            mistakes.append(f"line {number}: {entry.path} has another label further up")
    if split is not None and all(entry.split is None for entry in entries.values()):
        mistakes.append("--split was asked for, but no line has a `split`")
    if mistakes:
        raise CannotEvaluate(f"mistakes in {manifest}:\n" + "\n".join(mistakes[:MAX_NAMED_MISTAKES]))
    for path, entry in entries.items():
        if split in {None, entry.split}:
            yield Labelled(path, manifest.parent / path, entry.label)


def _rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(StringIO(text, newline=""))
    try:
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if key and value}
    except csv.Error as error:
        raise CannotEvaluate(f"line {reader.line_num} is no CSV: {error}") from error


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Not `splitlines`, which also breaks at characters that JSON allows within a string."""
    yield from ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _readable(name: str) -> str:
    """File names may be invalid UTF-8; output must be valid."""
    return os.fsencode(name).decode("utf-8", "replace")
