"""The data of an evaluation: labelled photos, predictions of a model, and the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from pipeline.types import Candidate, Locale, Subject, Usage, VersionTolerant

SCHEMA_VERSION: Final = 1

NOT_WASTE: Final = Subject.NOT_WASTE.value
"""Truth and prediction of a question that is not about waste. No category of the taxonomy."""


class CannotEvaluate(ValueError):
    """Nothing was evaluated, or nothing could be written. The message is printed to the user."""


@dataclass(frozen=True)
class Labelled:
    """A photo by name (`photo`), with the data set's label and the middle category that it means (`truth`).

    `also`: other categories accepted for this label. A question in words is its own name; `path` is its file.
    """

    photo: str
    path: Path
    label: str
    truth: str = ""
    also: frozenset[str] = frozenset()
    question: str = ""
    locale: Locale = Locale.KO


class Identity(VersionTolerant):
    """Everything but the photo that a prediction depends on. `setup` is a fingerprint of the settings."""

    model: str
    pipeline_version: str
    setup: str


class Prediction(VersionTolerant):
    """One model's prediction for one photo: a line of the journal. Either `predicted` or `error` is set.

    `guess` is the likeliest category, also when the model abstained; `seconds` is the time of the vision stage.
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
    """One photo of the report, or one question, whose text is `photo`."""

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
    """One category that is the truth or the prediction of a photo.

    `precision` is None without predictions of it, `recall` without photos of it. `wrong`: another category was said.
    """

    category: str
    name: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    wrong: int = 0
    abstained: int
    failed: int


class Bin(VersionTolerant):
    """Guesses with a confidence above `low`, up to `high`: their mean confidence, and the share that is right."""

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
    """Selective prediction, if only guesses of at least `threshold` counted: the share of photos answered, and their
    accuracy. Without a threshold: the predictions as they were.
    """

    threshold: float | None
    coverage: float
    accuracy: float | None


class Figures(VersionTolerant):
    """All photos count: an abstention or failure is not right. `confusion` is truth → prediction → photos.

    `guess_accuracy` is the accuracy of the guesses: that of the model without its threshold. `confidently_wrong` is the
    share for which another category was said, `unknown` the share that abstained where it should not have.
    """

    photos: int
    verdicts: Mapping[Verdict, int]
    errors: Mapping[str, int]
    accuracy: float
    guess_accuracy: float
    confidently_wrong: float = 0.0
    unknown: float = 0.0
    macro_f1: float
    classes: tuple[ClassFigures, ...]
    confusion: Mapping[str, Mapping[str, int]]
    calibration: Calibration
    selective: tuple[Selective, ...]


class Latency(VersionTolerant):
    """Seconds of the vision stage alone, over the photos that did not fail."""

    p50: float | None
    p95: float | None


class Run(VersionTolerant):
    """Everything that may differ between two runs with equal results. `resumed` photos came from the journal.

    `usage` is that of all photos, earlier runs included; `priced`: their price is known.
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
    """The JSON output. All but `run` is equal for two runs with equal results."""

    schema_version: Literal[1] = SCHEMA_VERSION
    of: Literal["photos", "questions"] = "photos"
    by: Identity
    labels: Mapping[str, str]
    figures: Figures
    items: tuple[Item, ...]
    run: Run
