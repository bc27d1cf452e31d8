"""Trains, measures and exports the local model: `training/.venv/bin/python -m training.train PHOTOS`.

Every run with the same photos and versions writes the same numbers: the seeds are fixed.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import yaml

from pipeline.models.local.heads import HeadBlend, softmax
from training.backbone import Network, load_network, run
from training.export import write_features, write_model
from training.head import FOLDS, Floats, Head, Labels, assign_folds, fit, fit_temperature
from training.measure import by_category, by_class
from training.ood import Plane, fit_limit, fit_plane
from training.photos import CLASSES, Photo, labels, load_photos, plain, views
from training.tune import FIRST, VIEWS, Activations, Tail, tune

NAME = "trashnet-lite2-2"
SIDE = 260
TAPS = (7, 11, 15, 20, 21)
"""Blocks whose mean activations the frozen head sees beside the last layer's: material shows in texture, which comes
early."""

SHARE = 0.7
"""Share of the tuned head in the logits; the rest is the frozen head's."""

TRUST_THRESHOLD, TRUST_SLOPE = 0.75, 3.0
"""When the second head is believed (`pipeline.models.local.heads`): 0.1 % of TrashNet's photos are beyond the turn."""

CATEGORIES = {
    "cardboard": "종이",
    "glass": "유리병",
    "metal": "금속류",
    "paper": "종이",
    "plastic": "플라스틱류",
    "trash": "일반종량제폐기물",
    "clear_pet": "무색페트병",
}
"""Class → middle category of the taxonomy."""

ALSO = {"plastic": ["무색페트병"]}
"""TrashNet's class → what is right as well for a photo with that label."""

AT_ONCE = 4
"""Views in one run of the network; with more each takes longer."""

CHECKED = 48
"""Photos on which ONNX and torch are compared."""

ROOT = Path(__file__).parent.parent
CACHE = Path(__file__).parent / ".cache"
TARGET = ROOT / "pipeline" / "resources" / "local_model"


@dataclass(frozen=True)
class Computed:
    """Outputs of the frozen network for (photo, view); view 0 is the plain photo. float16, to spare memory."""

    features: Activations
    activations: Activations


@dataclass(frozen=True)
class Outputs:
    """Outputs of the exported file for each photo."""

    logits: Floats
    things: Floats
    ood_score: Floats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="the TrashNet folder: labels.csv and a folder per class")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    CACHE.mkdir(exist_ok=True)
    TARGET.mkdir(parents=True, exist_ok=True)

    photos, held_out = load_photos(arguments.photos)
    truth = labels(photos)
    folds = assign_folds(truth)
    network = load_network(SIDE)
    with ProcessPoolExecutor(arguments.processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        computed = _compute(network, photos, pool)
        # The photos of fold FOLDS are none: the last tail is trained on all.
        tails = list(pool.map(partial(_tuned, truth, folds), range(FOLDS + 1)))

    everything = computed.features.astype(np.float32)
    outputs = _out_of_fold(network, everything, computed.activations[:, 0], truth, folds, tails)
    temperature = fit_temperature(outputs.logits, truth)
    limit = fit_limit(everything[:, :1], folds)
    blend = HeadBlend.of(
        [CATEGORIES[name] for name in CLASSES],
        load_things(),
        outputs.things.shape[1],
        temperature=temperature,
        ood_limit=limit,
        trust_threshold=TRUST_THRESHOLD,
        trust_slope=TRUST_SLOPE,
    )
    right = [{CATEGORIES[name], *ALSO.get("plastic" if name == "clear_pet" else name, ())} for name in CLASSES]
    evaluation = {
        "first_head": by_class(softmax(outputs.logits / temperature), truth, folds),
        "middle_category": by_category(
            blend.probabilities(outputs.logits, outputs.things, outputs.ood_score), blend.categories, truth, right
        ),
    }
    print(json.dumps(evaluation, indent=2, ensure_ascii=False))
    print(f"temperature {temperature:.3f}, out-of-distribution limit {limit:.3f}")

    head, plane = fit(everything, truth), fit_plane(everything[:, :1])
    path = TARGET / "model.onnx"
    write_model(path, network, SIDE, TAPS, (head, tails[-1], SHARE), plane)
    _write_card(path, blend, evaluation)
    _verify(path, network, (head, tails[-1]), plane, photos[:: len(photos) // CHECKED])
    _show(path, held_out, blend)


def load_things() -> dict[int, str]:
    """Index of an ImageNet class → middle category."""
    groups: Mapping[str, Mapping[int, str]] = yaml.safe_load((TARGET / "things.yaml").read_text("utf-8"))
    return {index: category for category, group in groups.items() for index in group}


def _compute(network: Network, photos: Sequence[Photo], pool: Executor) -> Computed:
    """Computed by the network that ships: five minutes, 1.3 GB. Cached until it, the photos or their views change."""
    write_features(CACHE / "features.onnx", network, SIDE, TAPS)
    digest = hashlib.sha256((CACHE / "features.onnx").read_bytes())
    for photo in photos:
        digest.update(photo.path.read_bytes())
    digest.update(Path(__file__).with_name("photos.py").read_bytes() + bytes([VIEWS]))
    stamp = CACHE / "seen.txt"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        rows = pool.map(_features, range(len(photos)), photos)
        for row, (features, activations) in enumerate(rows):
            if row == 0:
                kept = [
                    np.lib.format.open_memmap(CACHE / name, "w+", np.float16, (len(photos), *values.shape))
                    for name, values in (("features.npy", features), ("activations.npy", activations))
                ]
            kept[0][row], kept[1][row] = features, activations
            if row % 100 == 0:
                print(f"seen {row}/{len(photos)}", file=sys.stderr, flush=True)
        for values in kept:
            values.flush()
        stamp.write_text(digest.hexdigest())
    return _computed()


def _computed() -> Computed:
    return Computed(np.load(CACHE / "features.npy", "r"), np.load(CACHE / "activations.npy", "r"))


def _features(seed: int, photo: Photo) -> tuple[Activations, Activations]:
    session = _session(CACHE / "features.onnx")
    pixels = views(photo, SIDE, VIEWS, seed)
    parts = [_run(session, pixels[start : start + AT_ONCE]) for start in range(0, len(pixels), AT_ONCE)]
    features, activations = (np.concatenate(values).astype(np.float16) for values in zip(*parts, strict=True))
    return features, activations


def _tuned(truth: Labels, folds: Labels, fold: int) -> Tail:
    """The late blocks, tuned on all photos but those of the fold; cached until their inputs change."""
    rows = np.flatnonzero(folds != fold)
    digest = hashlib.sha256((CACHE / "seen.txt").read_bytes() + truth.tobytes() + rows.tobytes())
    digest.update(Path(__file__).with_name("tune.py").read_bytes())
    path = CACHE / f"tail-{digest.hexdigest()[:12]}.pt"
    if not path.exists():
        tail = tune(load_network(SIDE).blocks, _computed().activations, rows, truth[rows], name=f"fold {fold}")
        torch.save(tail, path)
    kept: Tail = torch.load(path, weights_only=False)
    return kept


def _out_of_fold(
    network: Network, everything: Floats, activations: Activations, truth: Labels, folds: Labels, tails: Sequence[Tail]
) -> Outputs:
    """Outputs for each plain photo by heads and planes that were trained without it."""
    logits, ood_score = np.empty((len(truth), len(CLASSES)), np.float32), np.empty(len(truth), np.float32)
    for fold in range(FOLDS):
        held = folds == fold
        frozen = fit(everything[~held], truth[~held]).logits(everything[held, 0])
        logits[held] = blended(tails[fold].logits(activations[held]), frozen)
        ood_score[held] = fit_plane(everything[~held, :1]).ood_score(everything[held, 0])
    return Outputs(logits, things_of(network, everything[:, 0]), ood_score)


def blended(tuned: Floats, frozen: Floats) -> Floats:
    return SHARE * tuned + (1 - SHARE) * frozen


def things_of(network: Network, features: Floats) -> Floats:
    last = features[:, -network.weight.shape[1] :]
    logits: Floats = last @ network.weight.numpy().T + network.bias.numpy()
    return logits


@lru_cache
def _session(path: Path) -> onnxruntime.InferenceSession:
    """As `pipeline.models.local.vision` opens the file that is served."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, pixels: np.ndarray) -> list[Floats]:
    """The outputs in the order of the file."""
    outputs = session.run(None, {"pixels": np.ascontiguousarray(pixels)})
    return [np.asarray(output, np.float32) for output in outputs]


def _write_card(path: Path, blend: HeadBlend, evaluation: Mapping[str, object]) -> None:
    card = {
        "name": NAME,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "side": SIDE,
        "classes": list(CLASSES),
        "categories": CATEGORIES,
        "also": ALSO,
        "temperature": round(blend.temperature, 4),
        "ood_limit": round(blend.ood_limit, 4),
        "trust_threshold": blend.trust_threshold,
        "trust_slope": blend.trust_slope,
        "evaluation": evaluation,
    }
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    path.with_name("model.json").write_text(text, "utf-8")


def _verify(path: Path, network: Network, heads: tuple[Head, Tail], plane: Plane, photos: Sequence[Photo]) -> None:
    """Exit unless the exported file and torch agree; rounding heads and plane to float16 is the whole difference."""
    pixels = np.stack([plain(photo, SIDE) for photo in photos])
    found = Outputs(*_run(_session(path), pixels))
    head, tail = heads
    with torch.inference_mode():
        features, values = run(network.blocks, torch.tensor(pixels), TAPS)
    expected = Outputs(
        blended(tail.logits(values[FIRST - 1].numpy()), head.logits(features.numpy())),
        things_of(network, features.numpy()),
        plane.ood_score(features.numpy()),
    )
    same = int((found.logits.argmax(axis=1) == expected.logits.argmax(axis=1)).sum())
    gaps = {
        name: float(np.abs(getattr(found, name) - getattr(expected, name)).max())
        for name in ("logits", "things", "ood_score")
    }
    print(f"onnx against torch: {same}/{len(photos)} same class, largest gaps {gaps}, {path.stat().st_size} bytes")
    if same != len(photos) or max(gaps.values()) > 0.05:
        sys.exit("the exported file and torch disagree")


def _show(path: Path, photos: Sequence[Photo], blend: HeadBlend) -> None:
    session = _session(path)
    for photo in photos:
        (row,) = blend.probabilities(*_run(session, plain(photo, SIDE)[None]))
        print(f"held out {photo.path.name}: {blend.categories[int(row.argmax())]} {row.max():.3f}")


if __name__ == "__main__":
    main()
