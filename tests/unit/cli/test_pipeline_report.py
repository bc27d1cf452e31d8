"""The pipelines that a running API and its workers use, for people."""

from io import StringIO

from rich.console import Console

from cli.pipeline_report import print_running
from client import Pipeline


def test_it_is_said_who_uses_another_version_and_why() -> None:
    refusal = {"version": "2b", "detail": "vision.md: [bold]"}
    workers = [{"worker": "host:1", "pipeline_version": "0a", "stale": True, "refusal": refusal}]
    running = Pipeline.model_validate(
        {"pipeline_version": "1a", "on_disk": "1a", "stale": False, "refusal": None, "workers": workers}
    )
    console = Console(width=120, file=StringIO())
    print_running(running, "1a", console)
    assert isinstance(console.file, StringIO)
    api, worker = (line for line in console.file.getvalue().splitlines() if "1a" in line or "0a" in line)
    assert "not the files here" not in api
    assert "not the files here; stale; refused 2b: vision.md: [bold]" in worker
