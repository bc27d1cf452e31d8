"""Scans: submit a photo, list the categories; and the legacy routes of both."""

from contextlib import suppress

import structlog
from fastapi import Request, Response

from api.deps import (
    CacheControl,
    CancelAfter,
    IdempotencyKey,
    Prefer,
    Services,
    ServicesDep,
    Wait,
    deadline_seconds,
    is_no_cache,
    preferred_wait_seconds,
    with_timeout,
)
from api.http import direct_route, openapi
from api.http.openapi import ok, problems
from api.http.problems import ALL_CODES, REFUSALS, as_problem, invalid, locale_of
from api.http.responses import json_response
from api.jobs import (
    find_job,
    photo_source,
    request_fingerprint,
    require_model,
    submit_job,
    submitted_view,
    wait_until_ended,
)
from api.paths import API, job_path
from api.routes.jobs import result_response
from api.schemas.jobs import ProcessingView, ResultView, SubmittedView
from api.schemas.requests import ClassifyRequest, ScanRequest
from api.schemas.service import CategoryView
from jobs.errors import LedgerUnavailable
from jobs.ids import new_job_id
from jobs.model import JobError, JobKind, NewJob
from jobs.view import JobView
from kit.errors import UnsafeUrl
from pipeline.types import JobInput, Locale

log = structlog.get_logger()

router = openapi.router(f"{API}/scan", "scan")


@direct_route.add(
    router,
    "POST",
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
    services: ServicesDep,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
    cancel_after: CancelAfter = None,
    cache_control: CacheControl = None,
) -> Response:
    """Take a photo to be classified. After a 503 send it again under the same Idempotency-Key: it stays one job."""
    if "locale" in body.model_fields_set:
        request.state.locale = body.locale
    headers = await services.admission.count(request)
    await require_model(body.model, services)
    job = NewJob(
        job_id=new_job_id(),
        input=_input(body, services, fresh=is_no_cache(cache_control)),
        deadline=deadline_seconds(cancel_after, services.jobs),
        pipeline_version=services.knowledge.version,
        trace_id=request.state.trace_id,
        metadata=body.metadata,
        callback_url=_callback_url(body, services),
        priority=body.priority,
    )
    submitting = submit_job(job, services, key=idempotency_key, fingerprint=request_fingerprint(body))
    created, line = await with_timeout(submitting, services.jobs.redis_timeout)
    headers["Location"] = job_path(created.job_id, JobKind.SCAN)
    if wait := min(preferred_wait_seconds(prefer), services.settings.max_wait):
        finished = await services.feed.wait(created.job_id, wait)
        headers["Preference-Applied"] = f"wait={wait:g}"
        if finished and finished.status.is_final:
            return json_response(JobView.of(finished, services.knowledge.texts), headers=headers)
    return json_response(await submitted_view(created, job, line, services), status=202, headers=headers)


@router.get("/categories", responses={200: ok(list[CategoryView], "Every category with its first instructions")})
async def categories(request: Request, services: ServicesDep, locale: Locale | None = None) -> Response:
    """The taxonomy, in the language of `locale` or Accept-Language. `name` is what results carry, always Korean."""
    return json_response(services.knowledge.rulebook.categories(locale or locale_of(request)))


@router.post("/classify", deprecated=True, responses={200: ok(ResultView, "How it ended"), **problems(413, 422)})
async def classify(body: ClassifyRequest, request: Request, services: ServicesDep) -> Response:
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
        await submit_job(job, services)
        task_id = job_id
        ended = await wait_until_ended(task_id, services.settings.classify_wait, services)
    except REFUSALS as error:
        with suppress(LedgerUnavailable):  # A job recorded but not sent must not run, and cost, later.
            await services.ledger.submissions.cancel(job_id)
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
async def task(job_id: str, services: ServicesDep, wait: Wait = 0) -> Response:
    """The older name of `/scan/{job_id}/result`."""
    return result_response(await find_job(job_id, JobKind.SCAN, services, wait), services)


def _input(body: ScanRequest, services: Services, *, fresh: bool = False) -> JobInput:
    """Raises Problem unless the photo is named in exactly one way."""
    if bool(body.image_url) == bool(body.image_key):
        raise invalid("body.image_url", "Give one of image_url and image_key")
    url, key = photo_source(body.image_url, body.image_key, services)
    return JobInput(
        image_url=url,
        image_key=key,
        user_input=body.user_input or "",
        model=body.model,
        locale=body.locale,
        fresh=fresh,
    )


def _callback_url(body: ScanRequest, services: Services) -> str | None:
    """The checked `callback_url`; the connection checks it again. Raises Problem, without the address in it."""
    if body.callback_url is None:
        return None
    if not services.jobs.webhook_keys:
        raise invalid("body.callback_url", "This server sends no webhooks: WORKERS_WEBHOOK_SECRETS is not set")
    try:
        return services.guard.check_url(body.callback_url).url
    except UnsafeUrl as error:
        log.info("callback.refused", detail=str(error))
        raise invalid("body.callback_url", "Not a public http or https address that may be called") from error
