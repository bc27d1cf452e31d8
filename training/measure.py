"""Figures of cross-validation, on photos that no part of the model was trained on."""

from collections.abc import Sequence

import numpy as np

from training.head import FOLDS, Floats, Labels
from training.photos import CLASSES, MERGED

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
BINS = 10


def six(probabilities: Floats) -> Floats:
    """(photo, class) → (photo, TrashNet's class)."""
    return np.stack([probabilities[:, np.equal(MERGED, label)].sum(axis=1) for label in range(max(MERGED) + 1)], axis=1)


def by_class(probabilities: Floats, labels: Labels, folds: Labels) -> dict[str, object]:
    """Figures of the first head alone: accuracy over TrashNet's six classes, and over each of them."""
    truth = np.array(MERGED)[labels]
    guesses = six(probabilities).argmax(axis=1)
    by_fold = [float((guesses == truth)[folds == fold].mean()) for fold in range(FOLDS)]
    names = CLASSES[: max(MERGED) + 1]
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (truth, guesses), 1)
    is_bottle, said_bottle = (
        labels == CLASSES.index("clear_pet"),
        probabilities.argmax(axis=1) == CLASSES.index("clear_pet"),
    )
    return {
        "photos": len(truth),
        "folds": FOLDS,
        "accuracy": round(float(np.mean(by_fold)), 4),
        "accuracy_by_fold": [round(value, 4) for value in by_fold],
        "accuracy_spread": round(float(np.std(by_fold)), 4),
        "recall": {name: round(float(confusion[i, i] / confusion[i].sum()), 4) for i, name in enumerate(names)},
        "precision": {name: round(float(confusion[i, i] / confusion[:, i].sum()), 4) for i, name in enumerate(names)},
        "confusion": {
            name: dict(zip(names, row.tolist(), strict=True)) for name, row in zip(names, confusion, strict=True)
        },
        "clear_pet": {
            "recall": round(float(said_bottle[is_bottle].mean()), 4),
            "precision": round(float(is_bottle[said_bottle].mean()), 4),
        },
    }


def by_category(
    probabilities: Floats, categories: Sequence[str], labels: Labels, right: Sequence[Sequence[str]]
) -> dict[str, object]:
    """Figures of the whole model: middle categories, calibration, and what holds at thresholds.

    `right` are the categories that are right for each class.
    """
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    is_right = np.array([categories[guess] in right[label] for guess, label in zip(guesses, labels, strict=True)])
    return {
        "accuracy": round(float(is_right.mean()), 4),
        "calibration_error": round(calibration_error(confidence, is_right), 4),
        "at_threshold": {
            str(threshold): {
                "answered": round(float((confidence >= threshold).mean()), 4),
                "right_if_answered": round(float(is_right[confidence >= threshold].mean()), 4),
            }
            for threshold in THRESHOLDS
        },
    }


def calibration_error(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """Expected calibration error: the gap of confidence and accuracy, averaged over equal bins by their photos."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(confidence[bins == index].mean() - is_right[bins == index].mean()) * (bins == index).mean()
        for index in np.unique(bins)
    ]
    return float(sum(gaps))
