"""Console output of an evaluation and of a comparison."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from cli.evaluation.comparison import Comparison
from cli.evaluation.matrix import matrix_of
from cli.evaluation.records import Figures, Report, Verdict

MAX_SHOWN_CHANGES = 100

MAX_SHOWN_COLUMNS = 12
"""A wider confusion matrix cannot be read on a console; the page and the picture have it."""


def print_report(report: Report, console: Console) -> None:
    figures = report.figures
    console.print(f"{report.by.model}, pipeline {report.by.pipeline_version}", highlight=False, markup=False)
    console.print(_summary(report), _classes(report))
    if len(matrix_of(figures).said) <= MAX_SHOWN_COLUMNS:
        console.print(_matrix(figures))
    console.print(_calibration(report), _selective(figures))
    console.print(*run_lines(report), sep="\n", highlight=False, markup=False)


def print_comparison(comparison: Comparison, console: Console) -> None:
    changed = Table("photo", "truth", "change", "before", "after", box=box.SIMPLE_HEAD)
    for item in comparison.items[:MAX_SHOWN_CHANGES]:
        changed.add_row(*(Text(each) for each in (item.photo, item.truth, item.change, item.before, item.after)))
    if comparison.items:
        console.print(changed)
    left_out = len(comparison.items) - MAX_SHOWN_CHANGES
    lines = [f"… and {left_out} more: --json OUT has all"] if left_out > 0 else []
    lines += [f"before: {comparison.before.model}, pipeline {comparison.before.pipeline_version}"]
    lines += [f"after:  {comparison.after.model}, pipeline {comparison.after.pipeline_version}"]
    lines += [", ".join(f"{count} {change}" for change, count in comparison.sums.items())]
    before, after = percent(comparison.accuracy_before), percent(comparison.accuracy_after)
    lines += [f"accuracy {before} → {after} over {comparison.photos} {comparison.of} in both"]
    lines += [f"by chance alone, a change as uneven as this one has the probability {comparison.chance:.3f}"]
    for name, photos in (("before", comparison.only_before), ("after", comparison.only_after)):
        lines += [f"{len(photos)} {comparison.of} are only in the report {name}"] if photos else []
    console.print("\n".join(lines), highlight=False, markup=False)


@contextmanager
def progress_bar(console: Console, *, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over photos. Yields a callback: call it once for each photo, with the number right so far."""
    columns = (BarColumn(bar_width=32), MofNCompleteColumn(), TextColumn("{task.fields[right]} right"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=total, right=0)
        yield lambda right: progress.update(task, advance=1, right=right)


def run_lines(report: Report) -> list[str]:
    """Latency, tokens, cost and duration, a line each."""
    run = report.run
    usage = run.usage
    latency = f"p50 {_seconds(run.latency.p50)}, p95 {_seconds(run.latency.p95)}"
    tokens = f"{usage.input_tokens} in ({usage.cached_tokens} of them cached), {usage.output_tokens} out"
    stage = "vision" if report.of == "photos" else "question"
    return [
        f"latency of the {stage} stage: {latency}, {run.concurrency} at once",
        f"tokens: {tokens}",
        f"cost: {usage.cost_usd:.4f} US dollars" if run.priced else "cost: no price is known: PIPELINE_PRICES",
        f"{run.seconds:.1f} s, {run.resumed} {report.of} taken from an earlier run",
    ]


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3f} s"


def _summary(report: Report) -> Table:
    figures = report.figures
    table = Table(box=None, show_header=False)
    count = figures.verdicts
    right = f"{count[Verdict.RIGHT]} of {figures.photos} {report.of}"
    rest = ", ".join(f"{count[each]} {each}" for each in Verdict if each is not Verdict.RIGHT)
    table.add_row("accuracy", Text(percent(figures.accuracy), style="bold"), f"{right}; {rest}")
    table.add_row("guesses", percent(figures.guess_accuracy), "right, whether they were said or not")
    table.add_row("confidently wrong", percent(figures.confidently_wrong), "another category was said")
    table.add_row("unknown", percent(figures.unknown), "no category was said, and there is one")
    table.add_row("macro-F1", f"{figures.macro_f1:.3f}", f"over the categories that have {report.of}")
    for code, photos in figures.errors.items():
        table.add_row("error", str(photos), Text(code, style="red"))
    return table


def _classes(report: Report) -> Table:
    numbers = _numbers("precision", "recall", "F1", report.of, "wrong", "abstained", "failed")
    table = Table("category", "", *numbers, box=box.SIMPLE_HEAD)
    for each in report.figures.classes:
        shares = (percent(each.precision), percent(each.recall), "–" if each.f1 is None else f"{each.f1:.3f}")
        counts = (str(each.support), str(each.wrong), str(each.abstained), str(each.failed))
        table.add_row(each.category, each.name, *shares, *counts)
    return table


def _matrix(figures: Figures) -> Table:
    matrix = matrix_of(figures)
    columns = (Column(name, justify="right", overflow="fold") for name in matrix.said)
    table = Table("truth \\ said", *columns, box=box.SIMPLE_HEAD)
    for truth, counts, hits in zip(matrix.truths, matrix.counts, matrix.hits, strict=True):
        cells = zip(counts, hits, strict=True)
        table.add_row(truth, *(Text(str(n or "·"), style="bold" if hit else "red" if n else "dim") for n, hit in cells))
    return table


def _calibration(report: Report) -> Table:
    found = report.figures.calibration
    ece = "–" if found.ece is None else f"{found.ece:.3f}"
    table = Table("confidence", *_numbers(report.of, "mean", "right"), box=box.SIMPLE_HEAD)
    table.title = f"calibration: ECE {ece} over {found.photos} guesses"
    table.title_justify = "left"
    for each in found.bins:
        if each.photos:
            mean, right = percent(each.confidence), percent(each.accuracy)
            table.add_row(f"{each.low:.1f}–{each.high:.1f}", str(each.photos), mean, right)
    return table


def _selective(figures: Figures) -> Table:
    table = Table("threshold", *_numbers("answered", "right if answered"), box=box.SIMPLE_HEAD)
    for each in figures.selective:
        threshold = "as it was" if each.threshold is None else f"{each.threshold:.1f}"
        table.add_row(threshold, percent(each.coverage), percent(each.accuracy))
    return table


def _numbers(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]
