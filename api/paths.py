"""Paths of this version of the API."""

from jobs.model import JobKind

API = "/api/v1"


def job_path(job_id: str, kind: JobKind) -> str:
    return f"{API}/{kind}/{job_id}"
