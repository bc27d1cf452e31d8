"""Comparison of two reports over the same photos: fixed, broken, or wrong in another way. Pure."""

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from cli.evaluation.records import SCHEMA_VERSION, CannotEvaluate, Identity, Item, Report, Verdict
from pipeline.types import Strict


class Change(StrEnum):
    FIXED = "fixed"
    BROKEN = "broken"
    CHANGED = "changed"


class ChangedItem(Strict):
    """`before` and `after` are categories, or error codes. `changed`: wrong in both reports, in different ways."""

    photo: str
    truth: str
    change: Change
    before: str
    after: str


class Comparison(Strict):
    """Accuracies are over the `photos` of both reports; photos of only one are listed.

    `chance` is the p-value of the sign test: how probable so uneven a split of fixed and broken photos is by chance.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    of: Literal["photos", "questions"] = "photos"
    before: Identity
    after: Identity
    photos: int
    accuracy_before: float | None
    accuracy_after: float | None
    sums: Mapping[Change, int]
    chance: float
    items: tuple[ChangedItem, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def read_report(path: Path) -> Report:
    """Raises CannotEvaluate for a file that is not a report of this version."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CannotEvaluate(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise CannotEvaluate(f"{path} is no report of `bunri eval` in version {SCHEMA_VERSION}") from error


def compare(before: Report, after: Report) -> Comparison:
    """Photos match by name and content: a replaced photo is another one. Each is judged by its own report's truth."""
    old = {(item.photo, item.sha256): item for item in before.items}
    new = {(item.photo, item.sha256): item for item in after.items}
    pairs = [(old[key], new[key]) for key in sorted(old.keys() & new.keys())]
    items = tuple(
        ChangedItem(photo=b.photo, truth=b.truth, change=change, before=_outcome(a), after=_outcome(b))
        for a, b in pairs
        if (change := _change(a, b)) is not None
    )
    sums = {change: sum(item.change is change for item in items) for change in Change}
    return Comparison(
        of=after.of,
        before=before.by,
        after=after.by,
        photos=len(pairs),
        accuracy_before=_accuracy([a for a, _ in pairs]),
        accuracy_after=_accuracy([b for _, b in pairs]),
        sums=sums,
        chance=sign_test(sums[Change.FIXED], sums[Change.BROKEN]),
        items=items,
        only_before=tuple(sorted(photo for photo, _ in old.keys() - new.keys())),
        only_after=tuple(sorted(photo for photo, _ in new.keys() - old.keys())),
    )


def sign_test(fixed: int, broken: int) -> float:
    """Two-sided exact McNemar test on the photos whose verdict changed."""
    turned = fixed + broken
    tail = sum(math.comb(turned, each) for each in range(min(fixed, broken) + 1))
    return round(min(1.0, tail / 2.0 ** (turned - 1)), 6)


def _change(before: Item, after: Item) -> Change | None:
    was_right, is_right = before.verdict is Verdict.RIGHT, after.verdict is Verdict.RIGHT
    if was_right != is_right:
        return Change.FIXED if is_right else Change.BROKEN
    return Change.CHANGED if not is_right and _outcome(before) != _outcome(after) else None


def _outcome(item: Item) -> str:
    return item.predicted or item.error or ""


def _accuracy(items: list[Item]) -> float | None:
    return round(sum(item.verdict is Verdict.RIGHT for item in items) / len(items), 6) if items else None
