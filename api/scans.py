"""Scans: submit a photo, look at the job, read its result, cancel it."""

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson
import structlog
from fastapi import APIRouter, Request, Response

from api.deps import (
    CancelAfter,
    FreshAsked,
    IdempotencyKey,
    Prefer,
    Services,
    Wait,
    Wired,
    deadline,
    in_time,
    is_fresh_asked,
    preferred_wait,
)
from api.description import ok, problems
from api.problems import ALL_CODES, REFUSALS, Problem, as_problem, invalid, locale_of, unavailable
from api.responses import json_response
from api.schemas import (
    API,
    CategoryView,
    ClassifyRequest,
    ProcessingView,
    ResultView,
    ScanRequest,
    SubmittedView,
    job_path,
)
from pipeline.errors import JobDeadlineExceeded, SourceUrlUnsafe
from pipeline.types import JobInput, Locale
from workers.jobs.connection import LedgerUnavailable
from workers.jobs.line import Line
from workers.jobs.model import Created, Job, JobError, JobStatus, NewJob
from workers.jobs.queue import job_born_at, new_job_id
from workers.jobs.view import JobView

ANONYMOUS = "anonymous"
"""Scope of idempotency keys: every caller, until callers have names. An address is none: a phone that moves to another
network and repeats its request would get a second job.
"""

POLL_AFTER = 2
"""Seconds between two looks at a result, for clients that poll."""

log = structlog.get_logger()

router = APIRouter(prefix=f"{API}/scan", tags=["scan"])


@router.post(
    "",
    status_code=202,
    responses={
        200: ok(JobView, "The job ended within the wait that was preferred"),
        202: ok(SubmittedView, "The job was taken"),
        **problems(409, 413, 422, 429, 503),
    },
)
async def submit(
    body: ScanRequest,
    request: Request,
    services: Wired,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
    cancel_after: CancelAfter = None,
    cache_control: FreshAsked = None,
) -> Response:
    """Take a photo to be classified. After a 503 send it again under the same Idempotency-Key: it stays one job."""
    headers = await services.admission.count(request)
    if "locale" in body.model_fields_set:
        request.state.locale = body.locale
    if body.model not in {None, "local"}:
        await _require_model(str(body.model), services)
    job = NewJob(
        job_id=new_job_id(),
        input=_input(body, services, fresh=is_fresh_asked(cache_control)),
        deadline=deadline(cancel_after, services.jobs),
        pipeline_version=services.knowledge.version,
        trace_id=request.state.trace_id,
        metadata=body.metadata,
        callback_url=_callback(body, services),
        priority=body.priority,
    )
    taking = _enqueue(job, services, key=idempotency_key, fingerprint=_fingerprint(body))
    created, line = await in_time(taking, services.jobs.redis_timeout)
    headers["Location"] = job_path(created.job_id)
    if wait := min(preferred_wait(prefer), services.settings.max_wait):
        finished = await services.feed.wait(created.job_id, wait)
        headers["Preference-Applied"] = f"wait={wait:g}"
        if finished and finished.status.is_final:
            return json_response(JobView.of(finished, services.knowledge.texts), headers=headers)
    return json_response(await _submitted(created, job, line, services), status=202, headers=headers)


@router.get("/categories", responses={200: ok(list[CategoryView], "Every category with its first instructions")})
async def categories(request: Request, services: Wired, locale: Locale | None = None) -> Response:
    """The taxonomy, in the language of `locale` or Accept-Language. `name` is what results carry, always Korean."""
    return json_response(services.knowledge.rulebook.categories(locale or locale_of(request)))


@router.post("/classify", deprecated=True, responses={200: ok(ResultView, "How it ended"), **problems(413, 422)})
async def classify(body: ClassifyRequest, request: Request, services: Wired) -> Response:
    """Submit and wait, for a client that never learnt to follow a job and hangs on any 5xx.

    So a failure to classify is 200 with `status: failed`, whoever is to blame.
    """
    trace_id, texts = request.state.trace_id, services.knowledge.texts
    job_id, task_id = new_job_id(), None
    try:
        await services.admission.count(request)
        job = NewJob(
            job_id=job_id,
            input=_input(ScanRequest(image_url=body.image_url, user_input=body.user_input), services),
            deadline=services.settings.classify_wait,
            pipeline_version=services.knowledge.version,
            trace_id=trace_id,
        )
        await _enqueue(job, services)
        task_id = job_id
        ended = await _end_of(task_id, services)
    except REFUSALS as error:
        with suppress(LedgerUnavailable):  # What was recorded and not sent must not run, and cost, later.
            await services.ledger.cancel(job_id)
        spec = ALL_CODES[as_problem(error).code]
        failure = JobError(code=spec.code, retryable=spec.retryable, trace_id=trace_id)
        return json_response(ResultView.failed(task_id, failure, texts, Locale.KO))
    return json_response(ResultView.of(ended, texts))


@router.get(
    "/task/{job_id}",
    deprecated=True,
    responses={
        200: ok(ResultView, "The job has ended"),
        202: ok(ProcessingView, "Not yet"),
        **problems(404, 410, 422, 503),
    },
)
async def task(job_id: str, services: Wired, wait: Wait = 0) -> Response:
    """The older name of `/scan/{job_id}/result`."""
    return await result(job_id, services, wait)


@router.get("/{job_id}", responses={200: ok(JobView, "The job"), **problems(404, 410, 422, 503)})
async def show(job_id: str, services: Wired, wait: Wait = 0) -> Response:
    """The whole job; with `wait`, when it has ended or the wait is over."""
    job = await services.lookout.with_wait(await find_job(job_id, services, wait))
    return json_response(JobView.of(job, services.knowledge.texts))


@router.get(
    "/{job_id}/result",
    responses={
        200: ok(ResultView, "The job has ended"),
        202: ok(ProcessingView, "Not yet"),
        **problems(404, 410, 422, 503),
    },
)
async def result(job_id: str, services: Wired, wait: Wait = 0) -> Response:
    """How the job ended. A failed job is 200, too, with `error` and without `pipeline_result`."""
    job = await find_job(job_id, services, wait)
    texts = services.knowledge.texts
    if job.status.is_final:
        return json_response(ResultView.of(job, texts))
    return json_response(ProcessingView.of(job, texts), status=202, headers={"Retry-After": str(POLL_AFTER)})


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    responses={202: ok(JobView, "The job is cancelled"), **problems(404, 409, 410, 503)},
)
async def cancel(job_id: str, services: Wired) -> Response:
    """Stop the job. Doing it twice is fine; a job that has completed or failed is 409."""
    _require_ours(job_id, services)
    job = await services.ledger.cancel(job_id)
    if job is None:
        raise _missing(job_id, services)
    if job.status is not JobStatus.CANCELLED:
        raise Problem("job.finished")
    return json_response(JobView.of(job, services.knowledge.texts), status=202)


async def find_job(job_id: str, services: Services, wait: float = 0) -> Job:
    """The job, after `wait` seconds at most if it has not ended. Raises Problem: not found or expired."""
    _require_ours(job_id, services)
    job = await services.feed.wait(job_id, min(wait, services.settings.max_wait))
    if job is None:
        raise _missing(job_id, services)
    return job


async def _enqueue(
    job: NewJob, services: Services, *, key: str | None = None, fingerprint: str = ""
) -> tuple[Created, Line]:
    """Record the job, then send it. Returns the line that it joined, too.

    When sending fails the job stays recorded: a repeat with the same key, or the sweep, sends it. Raises REFUSALS.
    """
    if job.input.image_key is None:
        services.guard.check_url(job.input.image_url)
    scoped = f"{ANONYMOUS}:{key}" if key else None
    line = await services.admission.join(job, scoped)
    created = await services.ledger.create(job, idempotency_key=scoped, fingerprint=fingerprint)
    if created.is_waiting:
        await services.queue.enqueue(created.job_id, job.priority)
    log.info("job.submitted", job_id=created.job_id, is_new=created.is_new)
    return created, line


async def _submitted(created: Created, new: NewJob, line: Line, services: Services) -> SubmittedView:
    if created.is_new:
        ahead = line.ahead(new.priority)
        return SubmittedView.of(
            created.job_id,
            status=JobStatus.QUEUED,
            queue_position=ahead + 1,
            estimated_wait=line.wait(new.priority, ahead),
            pipeline_version=new.pipeline_version,
        )
    job = await services.lookout.with_wait(await find_job(created.job_id, services))
    return SubmittedView.of(
        job.job_id,
        status=job.status,
        queue_position=job.queue_position,
        estimated_wait=job.estimated_wait,
        pipeline_version=job.pipeline_version,
    )


async def _end_of(job_id: str, services: Services) -> Job:
    """The ended job. Raises JobDeadlineExceeded when it has not ended in time; then it is cancelled."""
    job = await services.feed.wait(job_id, services.settings.classify_wait)
    if job is not None and job.status.is_final:
        return job
    job = await services.ledger.cancel(job_id)
    if job is None or job.status is JobStatus.CANCELLED:
        raise JobDeadlineExceeded("the synchronous wait was over")
    return job


async def _require_model(name: str, services: Services) -> None:
    """Raises Problem: the model is unknown; or nobody can say, because no worker is there just now."""
    known = await services.models()
    if not known:
        raise unavailable()
    if name not in known:
        raise invalid("body.model", f"The workers have {', '.join(known)}")


def _require_ours(job_id: str, services: Services) -> None:
    """An id that we never gave out needs no look at the ledger."""
    if job_born_at(job_id) is None:
        raise _missing(job_id, services)


def _missing(job_id: str, services: Services) -> Problem:
    """The id says when the job was made, so an expired one is told from one that never was."""
    born_at = job_born_at(job_id)
    is_old = born_at is not None and born_at < time.time() - services.jobs.result_ttl
    return Problem("job.expired" if is_old else "job.not_found")


def _input(body: ScanRequest, services: Services, *, fresh: bool = False) -> JobInput:
    """A link of our own store is read by its key, so that its expiry does not matter. Raises Problem."""
    if bool(body.image_url) == bool(body.image_key):
        raise invalid("body.image_url", "Give one of image_url and image_key")
    url = body.image_url or ""
    key = body.image_key or services.store.key_of(url)
    return JobInput(
        image_url="" if key else url,
        image_key=key,
        user_input=body.user_input or "",
        model=body.model,
        locale=body.locale,
        fresh=fresh,
    )


def _callback(body: ScanRequest, services: Services) -> str | None:
    """Checked as a photo's link is, and again when it is dialled. Raises Problem, which says nothing of the address."""
    if body.callback_url is None:
        return None
    if not services.jobs.webhook_keys:
        raise invalid("body.callback_url", "This server sends no webhooks: WORKERS_WEBHOOK_SECRETS is not set")
    try:
        return services.guard.check_url(body.callback_url).url
    except SourceUrlUnsafe as error:
        log.info("callback.refused", detail=error.detail)
        raise invalid("body.callback_url", "Not a public http or https address that may be called") from error


def _fingerprint(body: ScanRequest) -> str:
    fields: Mapping[str, Any] = body.model_dump(mode="json")
    return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()
