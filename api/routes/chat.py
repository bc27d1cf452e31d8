"""Chat: one question, with or without a photo, and its answer. Nothing of it is remembered for the next one."""

from contextlib import suppress

import structlog
from fastapi import Request, Response

from api.deps import CancelAfter, IdempotencyKey, Prefer, Services, ServicesDep, deadline, in_time, is_async_preferred
from api.http import direct_route
from api.http.openapi import ok, problems
from api.http.problems import REFUSALS, as_problem, invalid
from api.http.responses import json_response
from api.jobs import end_of, fingerprint_of, photo_of, require_model, submitted, take
from api.schemas import API, ChatRequest, ChatView, SubmittedView, job_path
from jobs.errors import LedgerUnavailable
from jobs.ids import new_job_id
from jobs.model import JobKind, NewJob
from kit.text import clean
from pipeline.types import AnswerForm, JobInput

KEEP_THEIR_STATUS = frozenset({"request.invalid", "idempotency.mismatch", "request.rate_limited"})
"""Refusals that are no 201. The first two are for a programmer to mend; the third is for the caller's own machinery,
which is to slow down, and which a 201 would tell to go on.
"""

MARGIN = 2.0
"""Seconds that a job which has run out of time is given to end by itself."""

log = structlog.get_logger()

router = direct_route.router(f"{API}/chat", "chat")


@router.post(
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
        deadline=_deadline(cancel_after, services, is_async=is_async),
        pipeline_version=services.knowledge.version,
        trace_id=request.state.trace_id,
    )
    if not is_async:
        return await _answer(body, job, request, services, idempotency_key)
    headers = await services.admission.count(request)
    await require_model(body.model, services)
    taking = take(job, services, key=idempotency_key, fingerprint=fingerprint_of(body))
    created, line = await in_time(taking, services.jobs.redis_timeout)
    headers |= {"Location": job_path(created.job_id, JobKind.CHAT), "Preference-Applied": "respond-async"}
    return json_response(await submitted(created, job, line, services), status=202, headers=headers)


async def _answer(body: ChatRequest, job: NewJob, request: Request, services: Services, key: str | None) -> Response:
    """Raises what is to keep its status."""
    texts, locale = services.knowledge.texts, body.locale
    headers: dict[str, str] = {}
    taken: str | None = None
    try:
        headers = await services.admission.count(request)
        await require_model(body.model, services)
        taking = take(job, services, key=key, fingerprint=fingerprint_of(body))
        created, _ = await in_time(taking, services.jobs.redis_timeout)
        taken = created.job_id
        ended = await end_of(taken, job.deadline + MARGIN, services, is_own=taken == job.job_id)
    except REFUSALS as error:
        problem = as_problem(error)
        if problem.code in KEEP_THEIR_STATUS:
            raise
        if key is None:  # What was recorded and not sent must not run, and cost, later. A repeat may still ask for it.
            with suppress(LedgerUnavailable):
                await services.ledger.submissions.cancel(job.job_id)
        view = ChatView.failed(problem.code, taken, texts, locale)
        return json_response(view, status=201, headers=headers | problem.headers)
    return json_response(ChatView.of(ended, texts), status=201, headers=headers)


def _deadline(cancel_after: str | None, services: Services, *, is_async: bool) -> float:
    """Seconds. Nobody waits longer than API_CHAT_WAIT for an answer, so nothing may take longer. Raises Problem."""
    if is_async:
        return deadline(cancel_after, services.jobs)
    longest = services.settings.chat_wait
    return min(deadline(cancel_after, services.jobs), longest) if cancel_after else longest


def _input(body: ChatRequest, services: Services) -> JobInput:
    """Raises Problem."""
    if body.image_url and body.image_key:
        raise invalid("body.image_url", "Give at most one of image_url and image_key")
    message = clean(body.message or "").strip()  # What nobody sees is no question.
    if not message and not body.image_url and not body.image_key:
        raise invalid("body.message", "Give a message, a photo or both")
    url, key = photo_of(body.image_url, body.image_key, services)
    return JobInput(
        image_url=url,
        image_key=key,
        user_input=message,
        model=body.model,
        locale=body.locale,
        form=AnswerForm.PROSE,
        temperature=body.temperature,
    )
