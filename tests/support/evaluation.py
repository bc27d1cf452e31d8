"""Items and reports of an evaluation, made by hand."""

from collections.abc import Sequence
from pathlib import Path

from cli.evaluation.metrics import figures_of, item_of
from cli.evaluation.records import Identity, Item, Labelled, Latency, Prediction, Report, Run
from pipeline.types import Candidate, Usage

WHO = Identity(model="local/test", pipeline_version="0a1b2c3d4e5f", setup="5e70b0000000")
NAMES = {"종이": "Paper", "유리병": "Glass bottles", "금속류": "Metals", "미분류": "Unclassified"}


def prediction(
    predicted: str | None,
    confidence: float | None = 0.9,
    *,
    guess: str | None = None,
    error: str | None = None,
    sha256: str = "5a",
    by: Identity = WHO,
) -> Prediction:
    """`guess` is `predicted` unless given."""
    first = guess or (predicted if predicted != "미분류" else None)
    candidates = (Candidate(middle_category=first, confidence=confidence),) if first and confidence is not None else ()
    return Prediction(
        sha256=sha256,
        by=by,
        predicted=predicted,
        guess=first,
        confidence=confidence,
        candidates=candidates,
        error=error,
    )


def item(truth: str, seen: Prediction, photo: str = "a.jpg") -> Item:
    return item_of(Labelled(photo, Path(photo), truth, truth), seen)


def report(items: Sequence[Item], by: Identity = WHO, dataset: str = "photos") -> Report:
    return Report(
        by=by,
        labels={each.label: each.truth for each in items},
        figures=figures_of(items, NAMES),
        items=tuple(items),
        run=Run(
            dataset=dataset,
            started_at="2026-11-28T00:00:00+00:00",
            seconds=1.0,
            concurrency=1,
            resumed=0,
            latency=Latency(p50=0.1, p95=0.2),
            usage=Usage(),
            priced=True,
        ),
    )
