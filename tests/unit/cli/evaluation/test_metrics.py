"""Figures against values worked out by hand."""

from pathlib import Path

import pytest

from cli.evaluation.metrics import calibration_of, figures_of, item_of, latency_of
from cli.evaluation.records import ClassFigures, Figures, Labelled, Verdict
from tests.support.evaluation import NAMES, item, prediction

PAPER, GLASS, METAL, NONE = NAMES


@pytest.fixture(scope="module")
def figures() -> Figures:
    """Ten photos: paper 3 of 4 (one taken for glass), glass 2 of 4 (one abstained, one failed), metal 0 of 2."""
    items = [
        *(item(PAPER, prediction(PAPER, 0.95)) for _ in range(3)),
        item(PAPER, prediction(GLASS, 0.65)),
        *(item(GLASS, prediction(GLASS, 0.85)) for _ in range(2)),
        item(GLASS, prediction(NONE, 0.45, guess=GLASS)),
        item(GLASS, prediction(None, None, error="source.corrupt_image")),
        *(item(METAL, prediction(PAPER, 0.55)) for _ in range(2)),
    ]
    return figures_of(items, NAMES)


def of_class(figures: Figures, category: str) -> ClassFigures:
    return next(each for each in figures.classes if each.category == category)


def test_every_photo_counts_and_only_right_ones_are_right(figures: Figures) -> None:
    assert (figures.photos, figures.accuracy) == (10, 0.5)
    assert figures.verdicts == {Verdict.RIGHT: 5, Verdict.WRONG: 3, Verdict.ABSTAINED: 1, Verdict.FAILED: 1}
    assert figures.errors == {"source.corrupt_image": 1}


def test_a_guess_that_was_not_said_counts_as_a_guess(figures: Figures) -> None:
    assert figures.guess_accuracy == 0.6


def test_precision_recall_and_f1_of_a_class(figures: Figures) -> None:
    paper, glass, metal = (of_class(figures, name) for name in (PAPER, GLASS, METAL))
    assert (paper.precision, paper.recall, paper.f1) == (0.6, 0.75, 0.666667)  # 3/5, 3/4, 6/9
    assert (glass.precision, glass.recall, glass.f1) == (0.666667, 0.5, 0.571429)  # 2/3, 2/4, 4/7
    assert (metal.precision, metal.recall, metal.f1) == (None, 0.0, 0.0)
    assert (glass.support, glass.abstained, glass.failed) == (4, 1, 1)


def test_macro_f1_is_the_mean_over_categories_with_photos(figures: Figures) -> None:
    assert figures.macro_f1 == pytest.approx((6 / 9 + 4 / 7 + 0) / 3, abs=1e-6)


def test_abstaining_is_no_category_of_its_own_unless_it_is_right_somewhere(figures: Figures) -> None:
    assert [each.category for each in figures.classes] == [PAPER, GLASS, METAL]
    right = figures_of([item(NONE, prediction(NONE, 0.0)), item(PAPER, prediction(NONE, 0.3, guess=PAPER))], NAMES)
    assert (of_class(right, NONE).precision, of_class(right, NONE).recall) == (0.5, 1.0)


def test_the_confusion_matrix_adds_up_to_all_photos(figures: Figures) -> None:
    assert figures.confusion == {
        PAPER: {PAPER: 3, GLASS: 1},
        GLASS: {GLASS: 2, NONE: 1, "failed": 1},
        METAL: {PAPER: 2},
    }


def test_calibration_counts_guesses_whether_they_were_said_or_not(figures: Figures) -> None:
    found = figures.calibration
    assert found.photos == 9  # The failed one has no guess.
    gaps = 1 * 0.55 + 2 * 0.55 + 1 * 0.65 + 2 * 0.15 + 3 * 0.05
    assert found.ece == pytest.approx(gaps / 9, abs=1e-6)
    filled = {each.low: (each.photos, each.confidence, each.accuracy) for each in found.bins if each.photos}
    assert filled == {
        0.4: (1, 0.45, 1.0),
        0.5: (2, 0.55, 0.0),
        0.6: (1, 0.65, 0.0),
        0.8: (2, 0.85, 1.0),
        0.9: (3, 0.95, 1.0),
    }


@pytest.mark.parametrize(("confidence", "low"), [(0.0, 0.0), (0.1, 0.0), (0.1001, 0.1), (0.7, 0.6), (1.0, 0.9)])
def test_each_confidence_has_one_bin(confidence: float, low: float) -> None:
    [found] = [each for each in calibration_of([item(PAPER, prediction(PAPER, confidence))]).bins if each.photos]
    assert found.low == low


def test_selective_accuracy_is_that_of_the_answers(figures: Figures) -> None:
    as_said, *rest = figures.selective
    assert (as_said.threshold, as_said.coverage, as_said.accuracy) == (None, 0.8, 0.625)  # 5 of 8
    at = {each.threshold: (each.coverage, each.accuracy) for each in rest}
    assert at == {0.5: (0.8, 0.625), 0.6: (0.6, 0.833333), 0.7: (0.5, 1.0), 0.8: (0.5, 1.0), 0.9: (0.3, 1.0)}


def test_to_abstain_is_right_where_there_is_nothing_to_name() -> None:
    assert item(NONE, prediction(NONE, 0.0)).verdict is Verdict.RIGHT
    assert item(PAPER, prediction(NONE, 0.0)).verdict is Verdict.ABSTAINED


def test_where_every_photo_failed_there_are_figures_still() -> None:
    figures = figures_of([item(PAPER, prediction(None, None, error="model.account"))], NAMES)
    assert (figures.accuracy, figures.macro_f1, figures.calibration.ece) == (0.0, 0.0, None)
    assert figures.selective[0].accuracy is None


@pytest.mark.parametrize(
    ("said", "truth", "verdict"),
    [(GLASS, GLASS, Verdict.RIGHT), (PAPER, PAPER, Verdict.RIGHT), (METAL, PAPER, Verdict.WRONG)],
)
def test_where_a_label_leaves_open_what_it_means_what_was_said_is_right(
    said: str, truth: str, verdict: Verdict
) -> None:
    photo = Labelled("a.jpg", Path("a.jpg"), "either", PAPER, frozenset({GLASS}))
    counted = item_of(photo, prediction(said, 0.9))
    assert (counted.truth, counted.verdict) == (truth, verdict)


def test_latency_is_a_measured_value_of_those_that_were_answered() -> None:
    predictions = [prediction(PAPER).model_copy(update={"seconds": n / 100}) for n in range(1, 21)]
    found = latency_of([*predictions, prediction(None, error="model.timeout")])
    assert (found.p50, found.p95) == (0.1, 0.19)
    assert latency_of([]).p50 is None
