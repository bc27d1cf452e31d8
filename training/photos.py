"""TrashNet photos: which there are, which are held out, and the views that a head is trained on."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.image import to_rgb

CLASSES = ("cardboard", "glass", "metal", "paper", "plastic", "trash")

HELD_OUT = Path(__file__).parent / "held_out.txt"
"""The photos in samples/: no head is trained on them, in cross-validation or for release."""

CROP_SHARE = 0.81
"""Share of each side that the cropped view keeps."""


@dataclass(frozen=True)
class Photo:
    path: Path
    label: int


def load_photos(folder: Path) -> tuple[list[Photo], list[Photo]]:
    """All photos of both splits, and apart from them the held-out ones."""
    held_out = set(HELD_OUT.read_text("utf-8").split())
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    photos = {row["path"]: Photo(folder / row["path"], CLASSES.index(row["label"])) for row in rows}
    seen = [photo for path, photo in photos.items() if path not in held_out]
    return seen, [photos[path] for path in sorted(held_out)]


def plain(photo: Photo, side: int) -> NDArray[np.uint8]:
    """The photo as the worker will see it."""
    return to_rgb(photo.path.read_bytes(), side)


def views(photo: Photo, side: int) -> NDArray[np.uint8]:
    """(view, side, side, 3). The plain view is first; it alone is scored in cross-validation."""
    full = plain(photo, side)
    larger = to_rgb(photo.path.read_bytes(), round(side / CROP_SHARE))
    edge = (len(larger) - side) // 2
    cropped = larger[edge : edge + side, edge : edge + side]
    return np.stack([full, full[:, ::-1], full[::-1], np.rot90(full), cropped])


def labels(photos: Sequence[Photo]) -> NDArray[np.int64]:
    return np.array([photo.label for photo in photos])
