"""What a run prints: a table for people, JSON lines for programs."""

from collections.abc import Iterable
from datetime import datetime

import orjson
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cli.scan.outcome import Outcome
from client import Delivery, Pipeline, Worker


def print_table(outcomes: Iterable[Outcome], console: Console) -> None:
    """Texts of models and users are shown as they are: never as rich's markup."""
    table = Table(box=box.SIMPLE_HEAD, show_lines=True)
    table.add_column("photo", overflow="fold", max_width=30)
    table.add_column("category", no_wrap=True)
    table.add_column("conf.", no_wrap=True, justify="right")
    # `fold`: else rich 15 puts an ellipsis in the place of a word whose space no longer fits.
    table.add_column("disposal steps, or the error and what to do", ratio=1, overflow="fold")
    table.add_column("s", no_wrap=True, justify="right")
    for outcome in outcomes:
        table.add_row(
            Text(outcome.photo),
            _category(outcome),
            _confidence(outcome),
            _steps(outcome),
            "–" if outcome.seconds is None else f"{outcome.seconds:.2f}",
        )
    console.print(table)


def print_running(running: Pipeline, version: str, console: Console) -> None:
    """What each process uses, beside the `version` of the files here."""
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


def print_json(outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        print(orjson.dumps(outcome.as_json()).decode(), flush=True)


def print_delivery(delivery: Delivery, console: Console) -> None:
    """Each attempt, in this machine's time, and what comes next."""
    table = Table("attempt", "at", "answer", "s", "outcome", "next in", box=box.SIMPLE_HEAD)
    for attempt in delivery.attempts:
        table.add_row(
            str(attempt.number),
            _time(attempt.at),
            str(attempt.status or attempt.error or "–"),
            "–" if attempt.seconds is None else f"{attempt.seconds:.2f}",
            attempt.outcome,
            "–" if attempt.retry_in is None else f"{attempt.retry_in:g} s",
        )
    if delivery.attempts:
        console.print(table)
    planned = f", next attempt {_time(delivery.next_attempt_at)}" if delivery.next_attempt_at else ""
    console.print(f"{delivery.state}{planned}", highlight=False)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _category(outcome: Outcome) -> Text:
    if not outcome.is_degraded:
        return Text(outcome.category or "–")
    return Text.assemble(outcome.category or "–", "\n", ("degraded:", "yellow"), "\n", ("local model", "yellow"))


def _confidence(outcome: Outcome) -> str:
    result = outcome.job.result if outcome.job else None
    return f"{result.classification_result.confidence:.2f}" if result else "–"


def _steps(outcome: Outcome) -> Text:
    if outcome.error_code is not None:
        return Text.assemble((outcome.error_code, "bold red"), "\n", outcome.error_message or "")
    result = outcome.job.result if outcome.job else None
    if result is None:
        return Text("cancelled", style="yellow")
    steps = enumerate(result.final_answer.disposal_steps.values(), start=1)
    return Text("\n".join(f"{number}. {step}" for number, step in steps))
