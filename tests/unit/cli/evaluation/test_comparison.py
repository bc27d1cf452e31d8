"""What a second report fixed and broke."""

from pathlib import Path

import pytest

from cli.evaluation.comparison import Change, compare, read_report, sign_test
from cli.evaluation.records import CannotEvaluate, Report
from tests.support.evaluation import item, prediction, report


def reported(**said: str | None) -> Report:
    """Each photo's truth is 종이; None: it failed."""
    error = "source.corrupt_image"
    return report(
        [item("종이", prediction(each, error=None if each else error), photo) for photo, each in said.items()]
    )


def test_fixed_broken_and_changed_photos_are_told_apart() -> None:
    before = reported(a="유리병", b="종이", c="유리병", d="유리병", e="종이", f="유리병")
    after = reported(a="종이", b="유리병", c="금속류", d="유리병", e="종이", f=None)
    found = compare(before, after)
    assert [(each.photo, each.change) for each in found.items] == [
        ("a", Change.FIXED),
        ("b", Change.BROKEN),
        ("c", Change.CHANGED),
        ("f", Change.CHANGED),
    ]
    assert found.sums == {Change.FIXED: 1, Change.BROKEN: 1, Change.CHANGED: 2}
    assert [(each.before, each.after) for each in found.items][3] == ("유리병", "source.corrupt_image")
    assert (found.photos, found.accuracy_before, found.accuracy_after) == (6, 0.333333, 0.333333)


def test_a_photo_of_one_report_only_is_named_and_a_replaced_one_is_another() -> None:
    before = report([item("종이", prediction("종이", sha256="1a"), name) for name in "ab"])
    after = report(
        [item("종이", prediction("종이", sha256=sha256), name) for name, sha256 in (("b", "2b"), ("c", "1a"))]
    )
    found = compare(before, after)
    assert (found.photos, found.accuracy_before) == (0, None)
    assert (found.only_before, found.only_after) == (("a", "b"), ("b", "c"))


@pytest.mark.parametrize(("fixed", "broken", "chance"), [(0, 0, 1.0), (1, 1, 1.0), (0, 5, 0.0625), (9, 1, 0.021484)])
def test_the_sign_test_is_exact(fixed: int, broken: int, chance: float) -> None:
    assert sign_test(fixed, broken) == chance


def test_a_file_that_is_no_report_of_this_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(CannotEvaluate):
        read_report(path)
    text = reported(a="종이").model_dump_json()
    path.write_text(text)
    assert read_report(path) == reported(a="종이")
    path.write_text(text.replace('"schema_version":1', '"schema_version":2'))
    with pytest.raises(CannotEvaluate):
        read_report(path)
