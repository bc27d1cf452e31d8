"""Metrics over the items of a report. Pure; docs/eval.md defines each of them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cli.evaluation.records import (
    Bin,
    Calibration,
    ClassFigures,
    Figures,
    Item,
    Labelled,
    Latency,
    Prediction,
    Selective,
    Verdict,
)
from pipeline.knowledge.rulebook import UNCLASSIFIED

BINS = 10
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
DIGITS = 6
"""Decimal places of every figure, so that equal runs write equal files."""

FAILED = "failed"
"""Column of the confusion matrix for photos that ended with an error."""


def item_of(photo: Labelled, prediction: Prediction) -> Item:
    """The truth is the guess if that is in `photo.also`, the label's other categories."""
    truth = prediction.guess if prediction.guess in photo.also else photo.truth
    return Item(
        photo=photo.photo,
        sha256=prediction.sha256,
        label=photo.label,
        truth=truth,
        predicted=prediction.predicted,
        guess=prediction.guess,
        confidence=prediction.confidence,
        candidates=prediction.candidates,
        error=prediction.error,
        verdict=_verdict(truth, prediction),
    )


def figures_of(items: Sequence[Item], names: Mapping[str, str]) -> Figures:
    """Metrics of one or more `items`; `names`: category → English name, in the taxonomy's order."""
    verdicts = Counter(item.verdict for item in items)
    truths = {item.truth for item in items}
    said = {item.predicted for item in items if item.predicted} - {UNCLASSIFIED}
    classes = tuple(_class(name, names[name], items) for name in names if name in truths | said)
    return Figures(
        photos=len(items),
        verdicts={verdict: verdicts[verdict] for verdict in Verdict},
        errors=dict(sorted(Counter(item.error for item in items if item.error).items())),
        accuracy=_share(verdicts[Verdict.RIGHT], len(items)),
        confidently_wrong=_share(verdicts[Verdict.WRONG], len(items)),
        unknown=_share(verdicts[Verdict.ABSTAINED], len(items)),
        guess_accuracy=_share(sum(item.guess == item.truth for item in items), len(items)),
        macro_f1=_mean([each.f1 or 0.0 for each in classes if each.support]),
        classes=classes,
        confusion=_confusion(items),
        calibration=calibration_of(items),
        selective=(_said(items), *(_at(items, threshold) for threshold in THRESHOLDS)),
    )


def calibration_of(items: Iterable[Item]) -> Calibration:
    """Calibration of the guesses, abstentions included: they have a confidence, too."""
    guessed = [
        (item.confidence, item.guess == item.truth) for item in items if item.guess and item.confidence is not None
    ]
    bins = [_bin(number, guessed) for number in range(BINS)]
    gaps = [each.photos * abs((each.confidence or 0.0) - (each.accuracy or 0.0)) for each in bins]
    return Calibration(
        ece=_round(math.fsum(gaps) / len(guessed)) if guessed else None, photos=len(guessed), bins=tuple(bins)
    )


def latency_of(predictions: Iterable[Prediction]) -> Latency:
    seconds = sorted(each.seconds for each in predictions if each.seconds is not None)
    return Latency(p50=_percentile(seconds, 0.50), p95=_percentile(seconds, 0.95))


def _verdict(truth: str, prediction: Prediction) -> Verdict:
    """To abstain is right where the truth itself is `UNCLASSIFIED`."""
    if prediction.predicted is None:
        return Verdict.FAILED
    if prediction.predicted == truth:
        return Verdict.RIGHT
    return Verdict.ABSTAINED if prediction.predicted == UNCLASSIFIED else Verdict.WRONG


def _class(category: str, name: str, items: Sequence[Item]) -> ClassFigures:
    mine = [item for item in items if item.truth == category]
    verdicts = Counter(item.verdict for item in mine)
    taken = sum(item.predicted == category for item in items)
    hits = verdicts[Verdict.RIGHT]
    return ClassFigures(
        category=category,
        name=name,
        support=len(mine),
        precision=_share(hits, taken) if taken else None,
        recall=_share(hits, len(mine)) if mine else None,
        f1=_share(2 * hits, taken + len(mine)),
        wrong=verdicts[Verdict.WRONG],
        abstained=verdicts[Verdict.ABSTAINED],
        failed=verdicts[Verdict.FAILED],
    )


def _confusion(items: Sequence[Item]) -> dict[str, dict[str, int]]:
    """Truth → prediction → photos; cells of zero are left out."""
    table: dict[str, dict[str, int]] = {}
    for (truth, said), photos in sorted(Counter((item.truth, item.predicted or FAILED) for item in items).items()):
        table.setdefault(truth, {})[said] = photos
    return table


def _bin(number: int, guessed: Sequence[tuple[float, bool]]) -> Bin:
    mine = [(confidence, hit) for confidence, hit in guessed if max(math.ceil(confidence * BINS) - 1, 0) == number]
    return Bin(
        low=number / BINS,
        high=(number + 1) / BINS,
        photos=len(mine),
        confidence=_mean([confidence for confidence, _ in mine]) if mine else None,
        accuracy=_share(sum(hit for _, hit in mine), len(mine)) if mine else None,
    )


def _said(items: Sequence[Item]) -> Selective:
    said = [item for item in items if item.predicted not in {None, UNCLASSIFIED}]
    return _selective(None, len(items), [item.verdict is Verdict.RIGHT for item in said])


def _at(items: Sequence[Item], threshold: float) -> Selective:
    sure = [item for item in items if item.guess and (item.confidence or 0.0) >= threshold]
    return _selective(threshold, len(items), [item.guess == item.truth for item in sure])


def _selective(threshold: float | None, photos: int, hits: Sequence[bool]) -> Selective:
    return Selective(
        threshold=threshold,
        coverage=_share(len(hits), photos),
        accuracy=_share(sum(hits), len(hits)) if hits else None,
    )


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest rank: a value that was measured."""
    return _round(ordered[max(math.ceil(share * len(ordered)) - 1, 0)]) if ordered else None


def _share(part: int, whole: int) -> float:
    return _round(part / whole)


def _mean(values: Sequence[float]) -> float:
    return _round(math.fsum(values) / len(values))


def _round(value: float) -> float:
    return round(value, DIGITS)
