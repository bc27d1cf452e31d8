"""TrashNet photos: which there are, which are held out, and the views that the heads are trained on."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from pipeline.intake.image import to_rgb

CLASSES = ("cardboard", "glass", "metal", "paper", "plastic", "trash", "clear_pet")
"""TrashNet's six, and the clear PET bottles among its plastics, which Korea collects apart."""

MERGED = (0, 1, 2, 3, 4, 5, 4)
"""Class → TrashNet's own. Accuracy is counted over these six, as others count it."""

HELD_OUT = Path(__file__).parent / "held_out.txt"
"""The photos in samples/: no head is trained on them, in cross-validation or for release."""

CLEAR_PET = Path(__file__).parent / "clear_pet.txt"
"""The plastics that show a bottle of colourless PET, sorted by eye. Bluish and green ones are not among them."""

CROP_SHARE = 0.81
"""Share of each side that the cropped view keeps."""


SMALLEST_CROP = 0.65
"""Share of each side that an augmented view keeps at least."""


@dataclass(frozen=True)
class Photo:
    path: Path
    label: int


def load_photos(folder: Path) -> tuple[list[Photo], list[Photo]]:
    """All photos of both splits, and apart from them the held-out ones."""
    held_out = set(HELD_OUT.read_text("utf-8").split())
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    clear = set(CLEAR_PET.read_text("utf-8").split())
    names = {row["path"]: "clear_pet" if row["path"] in clear else row["label"] for row in rows}
    photos = {path: Photo(folder / path, CLASSES.index(name)) for path, name in names.items()}
    seen = [photo for path, photo in photos.items() if path not in held_out]
    return seen, [photos[path] for path in sorted(held_out)]


def plain(photo: Photo, side: int) -> NDArray[np.uint8]:
    """The photo as the worker will see it."""
    return to_rgb(photo.path.read_bytes(), side)


def views(photo: Photo, side: int, count: int, seed: int) -> NDArray[np.uint8]:
    """(1 + count, side, side, 3): the plain view, which alone is scored in cross-validation, and augmented ones."""
    random = np.random.default_rng(seed)
    return np.stack([plain(photo, side), *(augmented(photo, side, random) for _ in range(count))])


def augmented(photo: Photo, side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """(side, side, 3): a crop, turned by quarters and mirrored, in another light."""
    larger = Image.fromarray(to_rgb(photo.path.read_bytes(), round(side / CROP_SHARE)))
    edge = larger.width
    width, height = (edge * random.uniform(SMALLEST_CROP, 1.0, 2)).astype(int)
    left, top = random.integers(edge - width + 1), random.integers(edge - height + 1)
    crop = larger.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    for change, most in ((ImageEnhance.Brightness, 0.25), (ImageEnhance.Contrast, 0.25), (ImageEnhance.Color, 0.3)):
        crop = change(crop).enhance(random.uniform(1 - most, 1 + most))
    tint = random.uniform(0.94, 1.06, 3)
    pixels = np.rot90(np.clip(np.asarray(crop) * tint, 0, 255).astype(np.uint8), random.integers(4))
    return pixels[:, ::-1] if random.random() < 0.5 else pixels


def labels(photos: Sequence[Photo]) -> NDArray[np.int64]:
    return np.array([photo.label for photo in photos])
