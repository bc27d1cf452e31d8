"""An interrupted run goes on from what is written."""

from pathlib import Path

import pytest

from cli.evaluation.journal import Journal
from tests.support.evaluation import WHO, prediction


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "out.looks.jsonl"
    seen = prediction("유리병", sha256="1a")
    with Journal(path, WHO) as journal:
        assert journal.find("1a") is None
        journal.add(seen)
        assert journal.find("1a") == seen
    with Journal(path, WHO) as journal:
        assert journal.find("1a") == seen
        assert journal.find("2b") is None


@pytest.mark.parametrize("other", ["model", "pipeline_version", "setup"])
def test_predictions_of_another_model_version_or_setup_do_not_count_and_are_kept(tmp_path: Path, other: str) -> None:
    path = tmp_path / "out.looks.jsonl"
    with Journal(path, WHO.model_copy(update={other: "another"})) as journal:
        journal.add(prediction("유리병", by=WHO.model_copy(update={other: "another"})))
    with Journal(path, WHO) as journal:
        assert journal.find("5a") is None
        journal.add(prediction("종이"))
    assert len(path.read_bytes().splitlines()) == 2


def test_a_line_that_was_cut_off_is_passed_over_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out.looks.jsonl"
    with Journal(path, WHO) as journal:
        journal.add(prediction("유리병", sha256="1a"))
        journal.add(prediction("유리병", sha256="2b"))
    path.write_bytes(path.read_bytes()[:-20])
    with Journal(path, WHO) as journal:
        assert journal.find("1a")
        assert journal.find("2b") is None
        journal.add(prediction("유리병", sha256="3c"))
    with Journal(path, WHO) as journal:
        assert journal.find("3c")


def test_trouble_that_passes_is_asked_again_and_a_broken_photo_is_not(tmp_path: Path) -> None:
    path = tmp_path / "out.looks.jsonl"
    errors = {"1a": "model.timeout", "2b": "model.account", "3c": "internal", "4d": "source.corrupt_image"}
    with Journal(path, WHO) as journal:
        for sha256, code in errors.items():
            journal.add(prediction(None, None, error=code, sha256=sha256))
    with Journal(path, WHO) as journal:
        assert [sha256 for sha256 in errors if journal.find(sha256)] == ["4d"]


def test_a_fresh_run_takes_nothing_and_writes_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.looks.jsonl"
    with Journal(path, WHO) as journal:
        journal.add(prediction("유리병"))
    with Journal(path, WHO, fresh=True) as journal:
        assert journal.find("5a") is None
        journal.add(prediction("종이"))
    with Journal(path, WHO) as journal:
        found = journal.find("5a")
        assert found is not None
        assert found.predicted == "종이"


def test_without_a_path_nothing_is_written() -> None:
    with Journal(None, WHO) as journal:
        journal.add(prediction("유리병"))
        assert journal.find("5a")
