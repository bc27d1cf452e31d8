"""What scans and chats have in common: to take a job, find it, show it, cancel it."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel

from api import direct
from api.deps import Services, Wait, Wired
from api.description import ok, problems
from api.problems import Problem, invalid, unavailable
from api.responses import json_response
from api.schemas import API, ProcessingView, ResultView, SubmittedView
from pipeline.errors import JobDeadlineExceeded
from workers.jobs.line import Line
from workers.jobs.model import Created, Job, JobKind, JobStatus, NewJob
from workers.jobs.queue import job_born_at
from workers.jobs.view import JobView

ANONYMOUS = "anonymous"
"""Scope of idempotency keys: every caller, until callers have names. An address is none: a phone that moves to another
network and repeats its request would get a second job.
"""

POLL_AFTER = 2
"""Seconds between two looks at a result, for clients that poll."""

log = structlog.get_logger()


async def take(
    job: NewJob, services: Services, *, key: str | None = None, fingerprint: str = ""
) -> tuple[Created, Line]:
    """Record the job, then send it. Returns the line that it joined, too.

    When sending fails the job stays recorded: a repeat with the same key, or the sweep, sends it. Raises REFUSALS.
    """
    if job.input.image_url:
        services.guard.check_url(job.input.image_url)
    scoped = f"{ANONYMOUS}:{key}" if key else None
    line = await services.admission.join(job, scoped)
    created = await services.ledger.create(job, idempotency_key=scoped, fingerprint=fingerprint)
    if created.is_waiting:
        await services.queue.enqueue(created.job_id, job.priority)
    log.info("job.submitted", job_id=created.job_id, kind=job.kind, is_new=created.is_new)
    return created, line


async def submitted(created: Created, new: NewJob, line: Line, services: Services) -> SubmittedView:
    if created.is_new:
        ahead = line.ahead(new.priority)
        return SubmittedView.of(
            created.job_id,
            new.kind,
            status=JobStatus.QUEUED,
            queue_position=ahead + 1,
            estimated_wait=line.wait(new.priority, ahead),
            pipeline_version=new.pipeline_version,
        )
    job = await services.lookout.with_wait(await find_job(created.job_id, new.kind, services))
    return SubmittedView.of(
        job.job_id,
        job.kind,
        status=job.status,
        queue_position=job.queue_position,
        estimated_wait=job.estimated_wait,
        pipeline_version=job.pipeline_version,
    )


async def end_of(job_id: str, wait: float, services: Services, *, is_own: bool = True) -> Job:
    """The ended job; one that has not ended after `wait` seconds fails now with `job.deadline_exceeded`.

    One that an earlier request made (not `is_own`) goes on instead, and Problem `job.unfinished` is raised. Raises
    Problem, too, when this process stops meanwhile, and JobDeadlineExceeded when the record is gone.
    """
    job = await services.feed.wait(job_id, wait)
    if job is not None and job.status.is_final:
        return job
    if services.feed.is_closing:
        raise unavailable()
    if not is_own:
        raise Problem("job.unfinished")
    job = await services.ledger.give_up(job_id)
    if job is None:
        raise JobDeadlineExceeded("the record was gone when the wait was over")
    return job


async def find_job(job_id: str, kind: JobKind, services: Services, wait: float = 0) -> Job:
    """The job, after `wait` seconds at most if it has not ended. Raises Problem: not found or expired."""
    _require_ours(job_id, services)
    job = await services.feed.wait(job_id, min(wait, services.settings.max_wait))
    if job is None or job.kind is not kind:
        raise _missing(job_id, services)
    return job


async def require_model(name: str | None, services: Services) -> None:
    """Raises Problem: the model is unknown; or nobody can say, because no worker is there just now."""
    if name in {None, "local"}:
        return
    known = await services.models()
    if not known:
        raise unavailable()
    if name not in known:
        raise invalid("body.model", f"The workers have {', '.join(known)}")


def photo_of(image_url: str | None, image_key: str | None, services: Services) -> tuple[str, str | None]:
    """URL and key, of which one is empty: a link of our own store is read by its key, so its expiry does not matter."""
    url = image_url or ""
    key = image_key or services.store.key_of(url)
    return "" if key else url, key


def fingerprint_of(body: BaseModel) -> str:
    """Of a request, to tell a repeat from another one under the same key."""
    fields: Mapping[str, Any] = body.model_dump(mode="json")
    return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


def operation(name: str, kind: JobKind) -> str:
    """The name of an operation, of which there is one for each kind; generated clients call scans' by the bare name."""
    return name if kind is JobKind.SCAN else f"{name}_{kind}"


def job_routes(kind: JobKind) -> APIRouter:
    """To look at a job of this kind and to cancel it."""
    router = direct.router(f"{API}/{kind}", kind.value)

    @router.get(
        "/{job_id}",
        name=operation("show", kind),
        responses={200: ok(JobView, "The job"), **problems(404, 410, 422, 503)},
    )
    async def show(job_id: str, services: Wired, wait: Wait = 0) -> Response:
        """The whole job; with `wait`, when it has ended or the wait is over."""
        job = await services.lookout.with_wait(await find_job(job_id, kind, services, wait))
        return json_response(JobView.of(job, services.knowledge.texts))

    @router.get(
        "/{job_id}/result",
        name=operation("result", kind),
        responses={
            200: ok(ResultView, "The job has ended"),
            202: ok(ProcessingView, "Not yet"),
            **problems(404, 410, 422, 503),
        },
    )
    async def result(job_id: str, services: Wired, wait: Wait = 0) -> Response:
        """How the job ended. A failed job is 200, too, with `error` and without `pipeline_result`."""
        return result_response(await find_job(job_id, kind, services, wait), services)

    @router.post(
        "/{job_id}/cancel",
        name=operation("cancel", kind),
        status_code=202,
        responses={202: ok(JobView, "The job is cancelled"), **problems(404, 409, 410, 503)},
    )
    async def cancel(job_id: str, services: Wired) -> Response:
        """Stop the job. Doing it twice is fine; a job that has completed or failed is 409."""
        await find_job(job_id, kind, services)
        job = await services.ledger.cancel(job_id)
        if job is None:
            raise _missing(job_id, services)
        if job.status is not JobStatus.CANCELLED:
            raise Problem("job.finished")
        return json_response(JobView.of(job, services.knowledge.texts), status=202)

    return router


def result_response(job: Job, services: Services) -> Response:
    texts = services.knowledge.texts
    if job.status.is_final:
        return json_response(ResultView.of(job, texts))
    return json_response(ProcessingView.of(job, texts), status=202, headers={"Retry-After": str(POLL_AFTER)})


def _require_ours(job_id: str, services: Services) -> None:
    """An id that we never gave out needs no look at the ledger."""
    if job_born_at(job_id) is None:
        raise _missing(job_id, services)


def _missing(job_id: str, services: Services) -> Problem:
    """The id says when the job was made, so an expired one is told from one that never was."""
    born_at = job_born_at(job_id)
    is_old = born_at is not None and born_at < time.time() - services.jobs.result_ttl
    return Problem("job.expired" if is_old else "job.not_found")
