"""What an evaluation knows: labelled photos, looks of a model at them, and the report. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from pipeline.types import Candidate, Usage, VersionTolerant

SCHEMA_VERSION: Final = 1


class CannotEvaluate(ValueError):
    """Nothing was evaluated, or nothing could be written. The text is for the person who asked."""


@dataclass(frozen=True)
class Labelled:
    """A photo with its label as the data set has it and the middle category that this means. `photo` is its name.

    `also` are categories that the label can mean as well.
    """

    photo: str
    path: Path
    label: str
    truth: str = ""
    also: frozenset[str] = frozenset()


class Identity(VersionTolerant):
    """Who looks: what an observation depends on besides the photo. `setup` is a fingerprint of the settings."""

    model: str
    pipeline_version: str
    setup: str


class Prediction(VersionTolerant):
    """One photo as one model saw it: a line of the journal. Either `predicted` or `error` is there.

    `guess` is the likeliest category, said or not; `seconds` are the model's own.
    """

    sha256: str
    by: Identity
    predicted: str | None = None
    guess: str | None = None
    confidence: float | None = None
    candidates: tuple[Candidate, ...] = ()
    usage: Usage = Usage()
    seconds: float | None = None
    error: str | None = None


class Verdict(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"
    ABSTAINED = "abstained"
    FAILED = "failed"


class Item(VersionTolerant):
    """One photo of the report."""

    photo: str
    sha256: str
    label: str
    truth: str
    predicted: str | None
    guess: str | None
    confidence: float | None
    candidates: tuple[Candidate, ...]
    error: str | None
    verdict: Verdict


class ClassFigures(VersionTolerant):
    """One category that is the truth of a photo or was said of one.

    `precision` is None where nothing was taken for it, `recall` where it has no photo.
    """

    category: str
    name: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    abstained: int
    failed: int


class Bin(VersionTolerant):
    """Guesses whose confidence lies above `low` and not above `high`: their mean confidence, and how many are right."""

    low: float
    high: float
    photos: int
    confidence: float | None
    accuracy: float | None


class Calibration(VersionTolerant):
    """`ece` is the expected calibration error over the `photos` that have a guess."""

    ece: float | None
    photos: int
    bins: tuple[Bin, ...]


class Selective(VersionTolerant):
    """If only guesses of at least `threshold` were said: the share of photos that is answered, and how many are right.

    Without a threshold: what the model did say.
    """

    threshold: float | None
    coverage: float
    accuracy: float | None


class Figures(VersionTolerant):
    """All photos count: one that abstained or failed is not right. `confusion` is truth → what was said → photos.

    `guess_accuracy` is the accuracy if every guess were said: that of the model without its threshold.
    """

    photos: int
    verdicts: Mapping[Verdict, int]
    errors: Mapping[str, int]
    accuracy: float
    guess_accuracy: float
    macro_f1: float
    classes: tuple[ClassFigures, ...]
    confusion: Mapping[str, Mapping[str, int]]
    calibration: Calibration
    selective: tuple[Selective, ...]


class Latency(VersionTolerant):
    """Seconds of the vision stage alone, of the photos that it answered."""

    p50: float | None
    p95: float | None


class Run(VersionTolerant):
    """What differs between two runs that found the same. `resumed` photos were taken from the journal.

    `usage` is that of all photos, whenever they were looked at; `priced` says whether their price is known.
    """

    dataset: str
    started_at: str
    seconds: float
    concurrency: int
    resumed: int
    latency: Latency
    usage: Usage
    priced: bool


class Report(VersionTolerant):
    """The JSON output. All but `run` is the same for two runs that found the same."""

    schema_version: Literal[1] = SCHEMA_VERSION
    by: Identity
    labels: Mapping[str, str]
    figures: Figures
    items: tuple[Item, ...]
    run: Run
