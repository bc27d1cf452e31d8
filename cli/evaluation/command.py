"""One evaluation from the data set to the files: read, predict, count, write, print."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console

from cli.evaluation.chart import draw_matrix
from cli.evaluation.comparison import Comparison, compare, read_report
from cli.evaluation.console_report import percent, print_comparison, print_report, progress_bar
from cli.evaluation.dataset import labelled_photos, spread
from cli.evaluation.journal import Journal
from cli.evaluation.labels import load_labels
from cli.evaluation.matrix import matrix_of
from cli.evaluation.metrics import figures_of, item_of, latency_of
from cli.evaluation.page import mistakes_of, render_page
from cli.evaluation.predict import CONCURRENCY_HOSTED, Predictor, open_predictor, predict_all
from cli.evaluation.questions import labelled_questions
from cli.evaluation.records import NOT_WASTE, CannotEvaluate, Labelled, Prediction, Report, Run, Verdict
from pipeline.errors import PipelineError
from pipeline.intake.decode import ImageDecoder
from pipeline.knowledge.rulebook import Rulebook
from pipeline.settings import PipelineSettings
from pipeline.types import SourceImage, Usage

THUMBNAIL_SIDE = 200

JOURNAL_SUFFIX = ".looks.jsonl"  # As in earlier releases, whose interrupted runs can still be resumed.


@dataclass(frozen=True)
class Outputs:
    json: Path | None = None
    html: Path | None = None
    png: Path | None = None

    @property
    def journal(self) -> Path | None:
        """Beside the first output. A run without outputs cannot be resumed."""
        first = self.json or self.html or self.png
        return first.with_suffix(JOURNAL_SUFFIX) if first else None

    def check(self) -> None:
        """Call it before the first paid request. Raises CannotEvaluate."""
        for path in (self.json, self.html, self.png):
            if path is not None and (path.is_dir() or not path.parent.is_dir()):
                raise CannotEvaluate(f"{path} cannot be written: there is no such folder, or it is one")


@dataclass(frozen=True)
class EvaluationRequest:
    """The options of `bunri eval`."""

    source: Path
    """Photos; or, with `questions`, a file of questions."""
    model: str | None = None
    labels: Path | None = None
    split: str | None = None
    limit: int | None = None
    concurrency: int | None = None
    fresh: bool = False
    outputs: Outputs = Outputs()
    questions: bool = False


async def evaluate(request: EvaluationRequest, *, out: Console, err: Console) -> Report:
    """Prints figures to `out` and progress to `err`. Raises CannotEvaluate; a photo that fails is an item."""
    request.outputs.check()
    settings = PipelineSettings()
    started_at, start = datetime.now(UTC), time.monotonic()
    async with open_predictor(settings, request.model, reads_questions=request.questions) as predictor:
        rulebook = predictor.knowledge.rulebook
        labels = load_labels(rulebook, settings.resources, request.labels)
        if request.questions:
            photos = labelled_questions(request.source, request.split, labels, rulebook)
        else:
            photos = labels.apply(labelled_photos(request.source, request.split))
        if request.limit is not None:
            photos = spread(photos, request.limit)
        concurrency = request.concurrency or (1 if predictor.is_local else CONCURRENCY_HOSTED)
        predictions, resumed = await _predict(photos, predictor, request, concurrency, err)
    run = Run(
        dataset=str(request.source),
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - start, 3),
        concurrency=concurrency,
        resumed=resumed,
        latency=latency_of(predictions),
        usage=_rounded(sum((each.usage for each in predictions), Usage())),
        priced=predictor.priced,
    )
    report = _report(photos, predictions, predictor, rulebook, run)
    await _write(report, photos, request.outputs, settings)
    print_report(report, out)
    return report


def show_comparison(before: Path, after: Path, target: Path | None, out: Console) -> None:
    """Raises CannotEvaluate."""
    comparison = compare(read_report(before), read_report(after))
    if target is not None:
        Outputs(json=target).check()
        _write_json(comparison, target)
    print_comparison(comparison, out)


def floor_missed(report: Report, floor: float) -> str | None:
    """The sentence to print when the accuracy is below `floor`, else None."""
    if report.figures.accuracy >= floor:
        return None
    return f"the accuracy {percent(report.figures.accuracy)} is below the floor {percent(floor)}"


async def _predict(
    photos: Sequence[Labelled], predictor: Predictor, request: EvaluationRequest, concurrency: int, err: Console
) -> tuple[list[Prediction], int]:
    """The predictions in the order of the photos, and how many of them came from the journal."""
    resumed = right = 0
    try:
        with (
            Journal(request.outputs.journal, predictor.identity, fresh=request.fresh) as journal,
            progress_bar(err, total=len(photos)) as advance,
        ):

            def on_prediction(photo: Labelled, prediction: Prediction, was_known: bool) -> None:  # noqa: FBT001 - a callback
                nonlocal resumed, right
                resumed += was_known
                right += item_of(photo, prediction).verdict is Verdict.RIGHT
                advance(right)

            predictions = await predict_all(
                photos, predictor, journal, concurrency=concurrency, on_prediction=on_prediction
            )
    except OSError as error:
        raise CannotEvaluate(f"{request.outputs.journal} cannot be written: {error.strerror}") from error
    return predictions, resumed


def _report(
    photos: Sequence[Labelled], predictions: Sequence[Prediction], predictor: Predictor, rulebook: Rulebook, run: Run
) -> Report:
    items = tuple(item_of(photo, prediction) for photo, prediction in zip(photos, predictions, strict=True))
    names = {name: rulebook.middle(name).en for name in rulebook.middles()} | {NOT_WASTE: "Not about waste"}
    return Report(
        of="questions" if any(photo.question for photo in photos) else "photos",
        by=predictor.identity,
        labels={photo.label: photo.truth for photo in photos},
        figures=figures_of(items, names),
        items=items,
        run=run,
    )


async def _write(report: Report, photos: Sequence[Labelled], outputs: Outputs, settings: PipelineSettings) -> None:
    try:
        if outputs.json is not None:
            _write_json(report, outputs.json)
        if outputs.png is not None:
            title = f"{report.by.model}: {percent(report.figures.accuracy)} of {report.figures.photos} {report.of}"
            draw_matrix(matrix_of(report.figures), title, outputs.png)
        if outputs.html is not None:
            pictures = await _thumbnails(report, photos, settings)
            outputs.html.write_text(render_page(report, pictures), "utf-8")
    except OSError as error:
        raise CannotEvaluate(f"{error.filename} cannot be written: {error.strerror}") from error


def _write_json(document: Report | Comparison, path: Path) -> None:
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    try:
        path.write_bytes(orjson.dumps(document.model_dump(mode="json"), option=options))
    except OSError as error:
        raise CannotEvaluate(f"{path} cannot be written: {error.strerror}") from error


async def _thumbnails(report: Report, photos: Sequence[Labelled], settings: PipelineSettings) -> dict[str, SourceImage]:
    """Photo → thumbnail for the mistakes that the page shows; a broken file has none.

    Made in the decode process: files are untrusted.
    """
    wanted = {item.photo for item in mistakes_of(report)}
    decoder = ImageDecoder(settings.model_copy(update={"image_long_side": THUMBNAIL_SIDE}))
    pictures = {}
    try:
        for photo in photos:
            if photo.photo in wanted and not photo.question:
                try:
                    pictures[photo.photo] = await decoder.prepare(photo.path.read_bytes())
                except (PipelineError, OSError):
                    continue
    finally:
        await decoder.close()
    return pictures


def _rounded(usage: Usage) -> Usage:
    """Rounded, without the error of adding floats."""
    return usage.model_copy(update={"cost_usd": round(usage.cost_usd, 8)})
