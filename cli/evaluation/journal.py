"""Predictions as JSON lines beside the output, so that an interrupted run can be resumed."""

from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydantic import ValidationError

from cli.evaluation.records import Identity, Prediction
from pipeline.errors import CATALOGUE, Blame


class Journal:
    """Predictions by `identity`, found by the photo's hash; those of other identities stay in the file, unread.

    Without a path it is in memory only. Writes are unbuffered and of whole lines, so a killed process loses none.
    """

    def __init__(self, path: Path | None, identity: Identity, *, fresh: bool = False) -> None:
        """Raises OSError if the file cannot be read or written."""
        self._identity = identity
        self._file: BinaryIO | None = None
        self._predictions: dict[str, Prediction] = {}
        if path is not None:
            self._file = path.open("ab+", buffering=0)
            self._read(keep=not fresh)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def find(self, sha256: str) -> Prediction | None:
        """An earlier prediction that need not be repeated."""
        return self._predictions.get(sha256)

    def add(self, prediction: Prediction) -> None:
        if _is_final(prediction):
            self._predictions[prediction.sha256] = prediction
        if self._file is not None:
            self._file.write(prediction.model_dump_json().encode() + b"\n")

    def _read(self, *, keep: bool) -> None:
        assert self._file is not None  # noqa: S101 - the caller opened it
        self._file.seek(0)
        data = self._file.read()
        if data and not data.endswith(b"\n"):  # A process was killed, or the disk was full, within a line.
            self._file.write(b"\n")
        if not keep:
            return
        for line in data.splitlines():
            try:
                prediction = Prediction.model_validate_json(line)
            except ValidationError:
                continue
            if prediction.by == self._identity and _is_final(prediction):
                self._predictions[prediction.sha256] = prediction


def _is_final(prediction: Prediction) -> bool:
    """Whether another attempt would end the same. Failures of the upstream or of our own are temporary."""
    error = prediction.error
    return error is None or (error in CATALOGUE and CATALOGUE[error].blame is Blame.CALLER)
