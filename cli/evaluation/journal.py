"""Looks as they come, one line each, beside the output: an interrupted run goes on from here."""

from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydantic import ValidationError

from cli.evaluation.records import Identity, Prediction
from pipeline.errors import CATALOGUE, Blame


class Journal:
    """Holds what was seen by `who`; looks of others stay in the file and are left alone.

    Without a path it only remembers. Lines are written whole and at once, so a killed process loses none.
    """

    def __init__(self, path: Path | None, who: Identity, *, fresh: bool = False) -> None:
        """Raises OSError if the file cannot be read or written."""
        self._who = who
        self._file: BinaryIO | None = None
        self._looks: dict[str, Prediction] = {}
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
        """An earlier look that need not be repeated."""
        return self._looks.get(sha256)

    def add(self, look: Prediction) -> None:
        if _is_final(look):
            self._looks[look.sha256] = look
        if self._file is not None:
            self._file.write(look.model_dump_json().encode() + b"\n")

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
                look = Prediction.model_validate_json(line)
            except ValidationError:
                continue
            if look.by == self._who and _is_final(look):
                self._looks[look.sha256] = look


def _is_final(look: Prediction) -> bool:
    """Whether asking again would end the same: an upstream's or our own trouble passes."""
    return look.error is None or (look.error in CATALOGUE and CATALOGUE[look.error].blame is Blame.CALLER)
