"""Output of a scan: a table for people, JSON lines for programs."""

from collections.abc import Iterable

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.scan.outcome import PhotoOutcome


def print_table(outcomes: Iterable[PhotoOutcome], console: Console) -> None:
    """Text of models and users is printed as it is, never as rich's markup."""
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


def print_json(outcomes: Iterable[PhotoOutcome]) -> None:
    for outcome in outcomes:
        print(orjson.dumps(outcome.as_json()).decode(), flush=True)


def _category(outcome: PhotoOutcome) -> Text:
    if not outcome.is_degraded:
        return Text(outcome.category or "–")
    return Text.assemble(outcome.category or "–", "\n", ("degraded:", "yellow"), "\n", ("local model", "yellow"))


def _confidence(outcome: PhotoOutcome) -> str:
    result = outcome.job.result if outcome.job else None
    return f"{result.classification_result.confidence:.2f}" if result else "–"


def _steps(outcome: PhotoOutcome) -> Text:
    if outcome.error_code is not None:
        return Text.assemble((outcome.error_code, "bold red"), "\n", outcome.error_message or "")
    result = outcome.job.result if outcome.job else None
    if result is None:
        return Text("cancelled", style="yellow")
    steps = enumerate(result.final_answer.disposal_steps.values(), start=1)
    return Text("\n".join(f"{number}. {step}" for number, step in steps))
