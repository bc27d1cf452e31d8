"""What scans and chats have in common: to take a job, find it, show it, cancel it."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from pydantic import BaseModel

from api.deps import Services
from api.http.problems import Problem, invalid, unavailable
from api.schemas import SubmittedView
from jobs.backlog import Backlog
from jobs.ids import job_born_at
from jobs.model import Created, Job, JobKind, JobStatus, NewJob
from pipeline.errors import JobDeadlineExceeded

ANONYMOUS = "anonymous"
"""Scope of idempotency keys: every caller, until callers have names. An address is none: a phone that moves to another
network and repeats its request would get a second job.
"""

log = structlog.get_logger()


async def take(
    job: NewJob, services: Services, *, key: str | None = None, fingerprint: str = ""
) -> tuple[Created, Backlog]:
    """Record the job, then send it. Returns the line that it joined, too.

    When sending fails the job stays recorded: a repeat with the same key, or the sweep, sends it. Raises REFUSALS.
    """
    if job.input.image_url:
        services.guard.check_url(job.input.image_url)
    scoped = f"{ANONYMOUS}:{key}" if key else None
    line = await services.admission.join(job, scoped)
    created = await services.ledger.submissions.create(job, idempotency_key=scoped, fingerprint=fingerprint)
    if created.is_waiting:
        await services.queue.enqueue(created.job_id, job.priority)
    log.info("job.submitted", job_id=created.job_id, kind=job.kind, is_new=created.is_new)
    return created, line


async def submitted(created: Created, new: NewJob, line: Backlog, services: Services) -> SubmittedView:
    if created.is_new:
        ahead = line.jobs_ahead(new.priority)
        return SubmittedView.of(
            created.job_id,
            new.kind,
            status=JobStatus.QUEUED,
            queue_position=ahead + 1,
            estimated_wait=line.wait(new.priority, ahead),
            pipeline_version=new.pipeline_version,
        )
    job = await services.backlog_reader.with_wait(await find_job(created.job_id, new.kind, services))
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
    job = await services.ledger.submissions.give_up(job_id)
    if job is None:
        raise JobDeadlineExceeded("the record was gone when the wait was over")
    return job


async def find_job(job_id: str, kind: JobKind, services: Services, wait: float = 0) -> Job:
    """The job, after `wait` seconds at most if it has not ended. Raises Problem: not found or expired."""
    _require_ours(job_id, services)
    job = await services.feed.wait(job_id, min(wait, services.settings.max_wait))
    if job is None or job.kind is not kind:
        raise missing(job_id, services)
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


def _require_ours(job_id: str, services: Services) -> None:
    """An id that we never gave out needs no look at the ledger."""
    if job_born_at(job_id) is None:
        raise missing(job_id, services)


def missing(job_id: str, services: Services) -> Problem:
    """The id says when the job was made, so an expired one is told from one that never was."""
    born_at = job_born_at(job_id)
    is_old = born_at is not None and born_at < time.time() - services.jobs.result_ttl
    return Problem("job.expired" if is_old else "job.not_found")
