"""`bunri pipeline show`: version, fingerprints and categories of the resources here, and what a running API uses."""

from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from client import Pipeline, Worker
from pipeline.knowledge.knowledge import Knowledge
from pipeline.knowledge.rulebook import Rulebook


def pipeline_json(knowledge: Knowledge, running: Pipeline | None) -> dict[str, Any]:
    """The output of --json. The keys are stable."""
    found: dict[str, Any] = {
        "pipeline_version": knowledge.version,
        "fingerprints": knowledge.fingerprints,
        "categories": list(knowledge.rulebook.middles()),
    }
    return found | ({"running": running.model_dump(mode="json")} if running else {})


def print_pipeline(knowledge: Knowledge, running: Pipeline | None, out: Console) -> None:
    out.print(f"pipeline_version {knowledge.version}")
    if running:
        print_running(running, knowledge.version, out)
    files = Table("file", "fingerprint")
    for name, digest in knowledge.fingerprints.items():
        files.add_row(name, digest)
    tags = knowledge.rulebook.tags
    out.print(files, _categories(knowledge.rulebook), f"{len(tags)} situation tags: {', '.join(tags)}")


def print_running(running: Pipeline, version: str, console: Console) -> None:
    """The version that each process uses, compared with `version`, that of the files here."""
    table = Table("process", "pipeline_version", Column("", overflow="fold"))
    processes: list[tuple[str, Pipeline | Worker]] = [("api", running)]
    processes += [(worker.worker, worker) for worker in running.workers or ()]
    for name, each in processes:
        notes = [
            "" if each.pipeline_version == version else "not the files here",
            "stale" if each.stale else "",
            f"refused {each.refusal.version}: {each.refusal.detail}" if each.refusal else "",
        ]
        table.add_row(Text(name), each.pipeline_version, Text("; ".join(note for note in notes if note)))
    console.print(table)


def _categories(rulebook: Rulebook) -> Table:
    table = Table("major", "middle", "English", Column("minors", overflow="fold"))
    for major in rulebook.majors:
        for middle in major.middles:
            table.add_row(major.ko, middle.ko, middle.en, ", ".join(minor.ko for minor in middle.minors))
    return table
