"""Chat: one question, with or without a photo, and its answer. Stateless: no conversation is stored."""

from contextlib import suppress

import structlog
from fastapi import Request, Response

from api.deps import (
    CancelAfter,
    IdempotencyKey,
    Prefer,
    Services,
    ServicesDep,
    deadline_seconds,
    is_async_preferred,
    with_timeout,
)
from api.http import direct_route, openapi
from api.http.openapi import ok, problems
from api.http.problems import REFUSALS, as_problem, invalid
from api.http.responses import json_response
from api.jobs import photo_source, request_fingerprint, require_model, submit_job, submitted_view, wait_until_ended
from api.paths import API, job_path
from api.schemas.jobs import ChatView, SubmittedView
from api.schemas.requests import ChatRequest
from jobs.errors import LedgerUnavailable
from jobs.ids import new_job_id
from jobs.model import JobKind, NewJob
from kit.text import clean
from pipeline.types import AnswerForm, JobInput

CODES_THAT_KEEP_THEIR_STATUS = frozenset({"request.invalid", "idempotency.mismatch", "request.rate_limited"})
"""Refusals that are not answered with 201. The first two are mistakes in the calling program; the third must reach the
caller's HTTP layer, which would not slow down after a 201.
"""

END_MARGIN_SECONDS = 2.0
"""Beyond the deadline: time in which the worker itself ends a job that has passed it."""

log = structlog.get_logger()

router = openapi.router(f"{API}/chat", "chat")


@direct_route.add(
    router,
    "POST",
    "/messages",
    status_code=201,
    responses={
        201: ok(ChatView, "The answer, or why there is none"),
        202: ok(SubmittedView, "The question was taken (`Prefer: respond-async`)"),
        **problems(409, 413, 422, 429, 503),
    },
)
async def ask(
    body: ChatRequest,
    request: Request,
    services: ServicesDep,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
    cancel_after: CancelAfter = None,
) -> Response:
    """Ask, and wait for the answer. What fails is 201, too: existing clients show `user_answer` and nothing else."""
    if "locale" in body.model_fields_set:
        request.state.locale = body.locale
    is_async = is_async_preferred(prefer)
    job = NewJob(
        job_id=new_job_id(),
        kind=JobKind.CHAT,
        input=_input(body, services),
        deadline=_deadline_seconds(cancel_after, services, is_async=is_async),
        pipeline_version=services.knowledge.version,
        trace_id=request.state.trace_id,
    )
    if not is_async:
        return await _answer(body, job, request, services, idempotency_key)
    headers = await services.admission.count(request)
    await require_model(body.model, services)
    submitting = submit_job(job, services, key=idempotency_key, fingerprint=request_fingerprint(body))
    created, line = await with_timeout(submitting, services.jobs.redis_timeout)
    headers |= {"Location": job_path(created.job_id, JobKind.CHAT), "Preference-Applied": "respond-async"}
    return json_response(await submitted_view(created, job, line, services), status=202, headers=headers)


async def _answer(body: ChatRequest, job: NewJob, request: Request, services: Services, key: str | None) -> Response:
    """Submit and wait. Raises the refusals of CODES_THAT_KEEP_THEIR_STATUS."""
    texts, locale = services.knowledge.texts, body.locale
    headers: dict[str, str] = {}
    job_id: str | None = None
    try:
        headers = await services.admission.count(request)
        await require_model(body.model, services)
        submitting = submit_job(job, services, key=key, fingerprint=request_fingerprint(body))
        created, _ = await with_timeout(submitting, services.jobs.redis_timeout)
        job_id = created.job_id
        ended = await wait_until_ended(job_id, job.deadline + END_MARGIN_SECONDS, services, is_own=job_id == job.job_id)
    except REFUSALS as error:
        problem = as_problem(error)
        if problem.code in CODES_THAT_KEEP_THEIR_STATUS:
            raise
        if (
            key is None
        ):  # A job recorded but not sent must not run, and cost, later; with a key a repeat may still ask for it.
            with suppress(LedgerUnavailable):
                await services.ledger.submissions.cancel(job.job_id)
        view = ChatView.failed(problem.code, job_id, texts, locale)
        return json_response(view, status=201, headers=headers | problem.headers)
    return json_response(ChatView.of(ended, texts), status=201, headers=headers)


def _deadline_seconds(cancel_after: str | None, services: Services, *, is_async: bool) -> float:
    """Seconds; at most API_CHAT_WAIT when the request waits for the answer. Raises Problem."""
    if is_async:
        return deadline_seconds(cancel_after, services.jobs)
    longest = services.settings.chat_wait
    return min(deadline_seconds(cancel_after, services.jobs), longest) if cancel_after else longest


def _input(body: ChatRequest, services: Services) -> JobInput:
    """Raises Problem for two photos, or neither message nor photo."""
    if body.image_url and body.image_key:
        raise invalid("body.image_url", "Give at most one of image_url and image_key")
    message = clean(body.message or "").strip()  # Invisible characters alone are no question.
    if not message and not body.image_url and not body.image_key:
        raise invalid("body.message", "Give a message, a photo or both")
    url, key = photo_source(body.image_url, body.image_key, services)
    return JobInput(
        image_url=url,
        image_key=key,
        user_input=message,
        model=body.model,
        locale=body.locale,
        form=AnswerForm.PROSE,
        temperature=body.temperature,
    )
