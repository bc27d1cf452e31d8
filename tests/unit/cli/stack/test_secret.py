"""The secret of a data directory."""

from pathlib import Path

import pytest

from cli.stack.processes import StartFailed
from cli.stack.secret import webhook_secret
from jobs.settings import JobsSettings


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    first, file = webhook_secret(tmp_path)
    assert len(JobsSettings.model_validate({"webhook_secrets": first}).webhook_keys) == 1
    assert webhook_secret(tmp_path) == (first, file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_each_directory_has_its_own(tmp_path: Path) -> None:
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    assert webhook_secret(folders[0])[0] != webhook_secret(folders[1])[0]


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    _, file = webhook_secret(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_start_that_broke_off_leaves_no_half_a_secret(tmp_path: Path) -> None:
    (tmp_path / "webhook-secret.new").write_text("whsec_")
    secret, _ = webhook_secret(tmp_path)
    assert JobsSettings.model_validate({"webhook_secrets": secret}).webhook_keys


def test_something_else_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "webhook-secret").write_text("hunter2")
    with pytest.raises(StartFailed) as failed:
        webhook_secret(tmp_path)
    assert "webhook-secret" in str(failed.value)
    assert "hunter2" not in str(failed.value)
