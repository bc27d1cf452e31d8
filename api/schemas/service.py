"""The service itself: its taxonomy, the pipeline in use, readiness and health."""

from typing import Literal

from jobs.view import View
from pipeline.types import Refusal


class CategoryView(View):
    id: str
    name: str
    display_name: str
    instructions: list[str]


class WorkerView(View):
    """`stale` and `refusal` as for the API itself."""

    worker: str
    pipeline_version: str
    models: tuple[str, ...]
    stale: bool
    refusal: Refusal | None


class PipelineView(View):
    """`stale`: the files on disk are not those that this process uses. For a moment after an edit; for good when it was
    refused, or when the local model has changed, which takes a restart. `refusal`: which edit is not used, and why.

    `models` are those of the live workers; `workers` is null if nobody can say.
    """

    pipeline_version: str
    on_disk: str
    stale: bool
    refusal: Refusal | None
    fingerprints: dict[str, str]
    models: tuple[str, ...]
    workers: list[WorkerView] | None


class CheckView(View):
    """A check that is not `blocking` is for people to see and does not count for `ready`."""

    ok: bool
    blocking: bool = True
    detail: str


class ReadinessView(View):
    ready: bool
    pipeline_version: str
    checks: dict[str, CheckView]


class HealthView(View):
    status: Literal["ok"] = "ok"
