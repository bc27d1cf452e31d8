"""Trains, measures and exports the local model: `training/.venv/bin/python -m training.train PHOTOS`.

Every run with the same photos and versions writes the same numbers: the seeds are fixed.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from training.backbone import Block, load_blocks, run
from training.export import write_features, write_model
from training.familiar import Plane, fit_limit, fit_plane
from training.head import (
    FOLDS,
    SEED,
    Floats,
    Head,
    Labels,
    assign_folds,
    fit,
    fit_temperature,
    out_of_fold,
    softmax,
)
from training.photos import CLASSES, Photo, labels, load_photos, plain, views

NAME = "trashnet-lite2-1"
SIDE = 260
TAPS = (7, 11, 15, 20, 21)
"""Blocks whose mean activations the head sees beside the last layer's: material shows in texture, which comes early."""

CATEGORIES = {
    "cardboard": "종이",
    "glass": "유리병",
    "metal": "금속류",
    "paper": "종이",
    "plastic": "플라스틱류",
    "trash": "일반종량제폐기물",
}
"""TrashNet class → middle category of the taxonomy."""

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
BINS = 10
CHECKED = 48
"""Photos on which ONNX and torch are compared."""

ROOT = Path(__file__).parent.parent
CACHE = Path(__file__).parent / ".cache"
TARGET = ROOT / "pipeline" / "resources" / "local_model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="the TrashNet folder: labels.csv and a folder per class")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(arguments.threads)

    blocks = load_blocks(SIDE)
    photos, held_out = load_photos(arguments.photos)
    features = _features(blocks, photos, arguments.threads)
    truth = labels(photos)

    folds = assign_folds(truth)
    logits = out_of_fold(features, truth, folds)
    temperature = fit_temperature(logits, truth)
    evaluation = _evaluation(logits, truth, folds, temperature)

    limit = fit_limit(features, folds)
    head, plane = fit(features, truth), fit_plane(features)
    TARGET.mkdir(parents=True, exist_ok=True)
    path = TARGET / "model.onnx"
    write_model(path, blocks, SIDE, TAPS, head, plane)
    _write_card(path, temperature, limit, evaluation)
    print(json.dumps(evaluation, indent=2, ensure_ascii=False))
    print(f"temperature {temperature:.3f}, strangeness limit {limit:.3f}")
    _verify(path, blocks, head, plane, photos[:: len(photos) // CHECKED])
    _show(path, held_out, temperature)


def _features(blocks: Sequence[Block], photos: Sequence[Photo], threads: int) -> Floats:
    """(photo, view, feature), computed by the network as it ships; kept until network, photos or views change."""
    CACHE.mkdir(exist_ok=True)
    network = CACHE / "features.onnx"
    write_features(network, blocks, SIDE, TAPS)
    digest = hashlib.sha256(network.read_bytes())
    for photo in photos:
        digest.update(photo.path.read_bytes())
    digest.update(Path(__file__).with_name("photos.py").read_bytes())
    cached = CACHE / f"features-{digest.hexdigest()[:12]}.npy"
    if not cached.exists():
        session = _session(network, threads)
        rows = []
        for done, photo in enumerate(photos, start=1):
            rows.append(_run(session, views(photo, SIDE))[0])
            if done % 100 == 0:
                print(f"features {done}/{len(photos)}", file=sys.stderr)
        np.save(cached, np.stack(rows))
    features: Floats = np.load(cached)
    return features


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, pixels: np.ndarray) -> list[Floats]:
    """The outputs in the order of the file."""
    outputs = session.run(None, {"pixels": np.ascontiguousarray(pixels)})
    return [np.asarray(output, np.float32) for output in outputs]


def _evaluation(logits: Floats, truth: Labels, folds: Labels, temperature: float) -> dict[str, object]:
    """What cross-validation says; all of it on photos that the head had not seen."""
    guesses = logits.argmax(axis=1)
    by_fold = [float((guesses == truth)[folds == fold].mean()) for fold in range(FOLDS)]
    confusion = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(confusion, (truth, guesses), 1)
    middles = sorted(set(CATEGORIES.values()))
    owner = np.array([middles.index(CATEGORIES[name]) for name in CLASSES])
    confidence, is_right = _by_middle(softmax(logits, temperature), truth, owner)
    raw_confidence, _ = _by_middle(softmax(logits, 1.0), truth, owner)
    return {
        "photos": len(truth),
        "folds": FOLDS,
        "accuracy": round(float(np.mean(by_fold)), 4),
        "accuracy_by_fold": [round(value, 4) for value in by_fold],
        "accuracy_spread": round(float(np.std(by_fold)), 4),
        "recall": {name: round(float(confusion[i, i] / confusion[i].sum()), 4) for i, name in enumerate(CLASSES)},
        "precision": {name: round(float(confusion[i, i] / confusion[:, i].sum()), 4) for i, name in enumerate(CLASSES)},
        "confusion": {
            name: dict(zip(CLASSES, row.tolist(), strict=True)) for name, row in zip(CLASSES, confusion, strict=True)
        },
        "middle_category_accuracy": round(float(is_right.mean()), 4),
        "calibration_error": round(_calibration_error(confidence, is_right), 4),
        "calibration_error_uncalibrated": round(_calibration_error(raw_confidence, is_right), 4),
        "at_threshold": {
            str(threshold): {
                "answered": round(float((confidence >= threshold).mean()), 4),
                "right_if_answered": round(float(is_right[confidence >= threshold].mean()), 4),
            }
            for threshold in THRESHOLDS
        },
    }


def _by_middle(probabilities: Floats, truth: Labels, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence in the likeliest middle category, and whether it is the right one."""
    sums = np.stack([probabilities[:, owner == middle].sum(axis=1) for middle in range(owner.max() + 1)], axis=1)
    return sums.max(axis=1), sums.argmax(axis=1) == owner[truth]


def _calibration_error(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """Expected calibration error: the gap of confidence and accuracy, averaged over equal bins by their photos."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(confidence[bins == index].mean() - is_right[bins == index].mean()) * (bins == index).mean()
        for index in np.unique(bins)
    ]
    return float(sum(gaps))


def _write_card(path: Path, temperature: float, limit: float, evaluation: dict[str, object]) -> None:
    card = {
        "name": NAME,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "side": SIDE,
        "classes": list(CLASSES),
        "categories": CATEGORIES,
        "temperature": round(temperature, 4),
        "strangeness_limit": round(limit, 4),
        "evaluation": evaluation,
    }
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    path.with_name("model.json").write_text(text, "utf-8")


def _verify(path: Path, blocks: Sequence[Block], head: Head, plane: Plane, photos: Sequence[Photo]) -> None:
    """Exit unless the exported file and torch agree; rounding head and plane to float16 is the whole difference."""
    pixels = np.stack([plain(photo, SIDE) for photo in photos])
    logits, strangeness = _run(_session(path, 1), pixels)
    with torch.inference_mode():
        features = run(blocks, torch.tensor(pixels), TAPS).numpy()
    reference = head.logits(features)
    gap = float(np.abs(logits - reference).max())
    strangeness_gap = float(np.abs(strangeness - plane.strangeness(features)).max())
    same = int((logits.argmax(axis=1) == reference.argmax(axis=1)).sum())
    print(f"onnx against torch: {same}/{len(photos)} same class, largest gap {gap:.4f} of a logit, ", end="")
    print(f"{strangeness_gap:.4f} of strangeness")
    if same != len(photos) or max(gap, strangeness_gap) > 0.05:
        sys.exit("the exported file and torch disagree")


def _show(path: Path, photos: Sequence[Photo], temperature: float) -> None:
    session = _session(path, 1)
    for photo in photos:
        logits, strangeness = _run(session, plain(photo, SIDE)[None])
        (row,) = softmax(logits, temperature)
        verdict = f"{CLASSES[int(row.argmax())]} {row.max():.3f}, strangeness {strangeness[0]:.2f}"
        print(f"held out {photo.path.name}: {verdict}")


if __name__ == "__main__":
    main()
