"""Outcome of each photo of a run: for the table, for --json and for the exit code."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from client import ApiProblem, Job


@dataclass(frozen=True)
class PhotoOutcome:
    """`job` is None when the API refused the photo; then `refusal` says why."""

    photo: str
    job: Job | None = None
    refusal: ApiProblem | None = None

    @property
    def category(self) -> str | None:
        if self.job is None or self.job.result is None:
            return None
        return self.job.result.classification_result.classification.middle_category

    @property
    def is_degraded(self) -> bool:
        """The local model answered, though another was asked for."""
        return self.job is not None and self.job.degraded

    @property
    def error_code(self) -> str | None:
        if self.refusal is not None:
            return self.refusal.code
        return self.job.error.code if self.job and self.job.error else None

    @property
    def error_message(self) -> str | None:
        if self.refusal is not None:
            return self.refusal.detail
        return self.job.error.message if self.job and self.job.error else None

    @property
    def seconds(self) -> float | None:
        """From the submit to the end of the job."""
        if self.job is None or self.job.finished_at is None:
            return None
        return round(self.job.finished_at - self.job.created_at, 3)

    def as_json(self) -> dict[str, Any]:
        """One line of --json. The keys are stable."""
        result = self.job.result if self.job else None
        seen = result.classification_result if result else None
        return {
            "photo": self.photo,
            "job_id": self.job.job_id if self.job else None,
            "status": self.job.status if self.job else "refused",
            "major_category": seen.classification.major_category if seen else None,
            "middle_category": self.category,
            "minor_category": seen.classification.minor_category if seen else None,
            "situation_tags": list(seen.situation_tags) if seen else [],
            "confidence": seen.confidence if seen else None,
            "disposal_steps": list(result.final_answer.disposal_steps.values()) if result else [],
            "user_answer": result.final_answer.user_answer if result else None,
            "model": self.job.model if self.job else None,
            "degraded": self.is_degraded,
            "pipeline_version": self.job.pipeline_version if self.job else None,
            "seconds": self.seconds,
            "timings": self.job.timings if self.job else {},
            "error": {"code": self.error_code, "message": self.error_message} if self.error_code else None,
        }


@dataclass(frozen=True)
class Expectation:
    """One entry of samples/expected.json: the category, or the error, that the photo should end with."""

    file: str
    category: str | None = None
    error: str | None = None

    def is_met_by(self, outcome: PhotoOutcome) -> bool:
        return (outcome.category, outcome.error_code) == (self.category, self.error)


def expectations_in(folder: Path) -> list[Expectation]:
    """Reads the folder's `expected.json`."""
    return [Expectation(**entry) for entry in orjson.loads((folder / "expected.json").read_bytes())]
