"""Jobs as routes of scans and chats use them alike: submit, find, wait for the end."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from pydantic import BaseModel

from api.deps import Services
from api.http.problems import Problem, invalid, unavailable
from api.schemas.jobs import SubmittedView
from jobs.backlog import Backlog
from jobs.ids import job_born_at
from jobs.model import Created, Job, JobKind, JobStatus, NewJob
from kit.errors import UnsafeUrl
from pipeline.errors import JobDeadlineExceeded, SourceUrlUnsafe

ANONYMOUS = "anonymous"
"""Scope of idempotency keys: all callers share one, until they have names. An IP address is no name: a phone that moves
to another network and repeats its request would get a second job.
"""

log = structlog.get_logger()


async def submit_job(
    job: NewJob, services: Services, *, key: str | None = None, fingerprint: str = ""
) -> tuple[Created, Backlog]:
    """Record the job, then send it. Returns the line that it joined, too.

    Idempotent under the same `key` and `fingerprint`. When sending fails the job stays recorded: a repeat with the same
    key, or the sweep, sends it. Raises REFUSALS.
    """
    if job.input.image_url:
        _check_photo_url(job.input.image_url, services)
    scoped = f"{ANONYMOUS}:{key}" if key else None
    backlog = await services.admission.join(job, scoped)
    created = await services.ledger.submissions.create(job, idempotency_key=scoped, fingerprint=fingerprint)
    if created.is_waiting:
        await services.queue.enqueue(created.job_id, job.priority)
    log.info("job.submitted", job_id=created.job_id, kind=job.kind, is_new=created.is_new)
    return created, backlog


def _check_photo_url(url: str, services: Services) -> None:
    """Refuse at submit what the fetcher would refuse later. Raises SourceUrlUnsafe."""
    try:
        services.guard.check_url(url)
    except UnsafeUrl as error:
        raise SourceUrlUnsafe(str(error)) from error


async def submitted_view(created: Created, new: NewJob, backlog: Backlog, services: Services) -> SubmittedView:
    """The answer to a submit; for a repeat it shows the first job as it is now."""
    if created.is_new:
        ahead = backlog.jobs_ahead(new.priority)
        return SubmittedView.of(
            created.job_id,
            new.kind,
            status=JobStatus.QUEUED,
            queue_position=ahead + 1,
            estimated_wait=backlog.wait(new.priority, ahead),
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


async def wait_until_ended(job_id: str, wait_seconds: float, services: Services, *, is_own: bool = True) -> Job:
    """The ended job. A job that has not ended after `wait_seconds` fails now with `job.deadline_exceeded`.

    A job of an earlier request (not `is_own`) continues instead. Raises Problem `job.unfinished` for that one, Problem
    `queue.unavailable` when this process stops meanwhile, JobDeadlineExceeded when the record is gone.
    """
    job = await services.feed.wait(job_id, wait_seconds)
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


async def find_job(job_id: str, kind: JobKind, services: Services, wait_seconds: float = 0) -> Job:
    """The job; waits for its end, at most `wait_seconds` or API_MAX_WAIT. Raises Problem: not found or expired."""
    _require_ours(job_id, services)
    job = await services.feed.wait(job_id, min(wait_seconds, services.settings.max_wait))
    if job is None or job.kind is not kind:
        raise missing_job(job_id, services)
    return job


async def require_model(name: str | None, services: Services) -> None:
    """Raises Problem: the model is unknown, or cannot be checked because no worker is alive."""
    if name in {None, "local"}:
        return
    known = await services.models()
    if not known:
        raise unavailable()
    if name not in known:
        raise invalid("body.model", f"The workers have {', '.join(known)}")


def photo_source(image_url: str | None, image_key: str | None, services: Services) -> tuple[str, str | None]:
    """URL and key of the photo, one of them empty. A link into our own store becomes its key: keys do not expire."""
    url = image_url or ""
    key = image_key or services.store.key_of(url)
    return "" if key else url, key


def request_fingerprint(body: BaseModel) -> str:
    """SHA-256 of the request, to tell a repeat from another request under the same key."""
    fields: Mapping[str, Any] = body.model_dump(mode="json")
    return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _require_ours(job_id: str, services: Services) -> None:
    """Raises Problem for an id that was never issued, without asking the ledger."""
    if job_born_at(job_id) is None:
        raise missing_job(job_id, services)


def missing_job(job_id: str, services: Services) -> Problem:
    """`job.expired` or `job.not_found`: the id holds the time of creation, so the two can be distinguished."""
    born_at = job_born_at(job_id)
    is_old = born_at is not None and born_at < time.time() - services.jobs.result_ttl
    return Problem("job.expired" if is_old else "job.not_found")
