"""Chat: one question, with or without a photo, and its answer. Nothing of it is remembered for the next one."""

from contextlib import suppress

import structlog
from fastapi import APIRouter, Request, Response

from api.deps import CancelAfter, IdempotencyKey, Prefer, Services, Wired, deadline, in_time, is_async_preferred
from api.description import ok, problems
from api.jobs import end_of, fingerprint_of, photo_of, require_model, submitted, take
from api.problems import REFUSALS, as_problem, invalid
from api.responses import json_response
from api.schemas import API, ChatRequest, ChatView, SubmittedView, job_path
from pipeline.clean import clean
from pipeline.types import AnswerForm, JobInput
from workers.jobs.connection import LedgerUnavailable
from workers.jobs.model import Job, JobKind, NewJob
from workers.jobs.queue import new_job_id

OWN_FAULT = "request."
"""Codes of what is wrong with the request itself, which is for a programmer to mend: they keep their status."""

MARGIN = 2.0
"""Seconds that a job which has run out of time is given to end by itself."""

log = structlog.get_logger()

router = APIRouter(prefix=f"{API}/chat", tags=["chat"])


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
    services: Wired,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
    cancel_after: CancelAfter = None,
) -> Response:
    """Ask, and wait for the answer. What fails is 201, too: existing clients show `user_answer` and nothing else."""
    headers = await services.admission.count(request)
    request.state.locale = body.locale
    is_async = is_async_preferred(prefer)
    job = NewJob(
        job_id=new_job_id(),
        kind=JobKind.CHAT,
        input=_input(body, services),
        deadline=deadline(cancel_after, services.jobs) if is_async else services.settings.chat_wait,
        pipeline_version=services.knowledge.version,
        trace_id=request.state.trace_id,
    )
    if not is_async:
        return json_response(await _answer(body, job, services, idempotency_key), status=201, headers=headers)
    await require_model(body.model, services)
    taking = take(job, services, key=idempotency_key, fingerprint=fingerprint_of(body))
    created, line = await in_time(taking, services.jobs.redis_timeout)
    headers |= {"Location": job_path(created.job_id, JobKind.CHAT), "Preference-Applied": "respond-async"}
    return json_response(await submitted(created, job, line, services), status=202, headers=headers)


async def _answer(body: ChatRequest, job: NewJob, services: Services, key: str | None) -> ChatView:
    """Raises Problem for what is wrong with the request itself."""
    texts, locale = services.knowledge.texts, body.locale
    taken: str | None = None
    try:
        await require_model(body.model, services)
        taking = take(job, services, key=key, fingerprint=fingerprint_of(body))
        created, _ = await in_time(taking, services.jobs.redis_timeout)
        taken = created.job_id
        return ChatView.of(await _end_of(taken, services), texts)
    except REFUSALS as error:
        problem = as_problem(error)
        if problem.code.startswith(OWN_FAULT) or problem.code == "idempotency.mismatch":
            raise
        if key is None:  # What was recorded and not sent must not run, and cost, later. A repeat may still ask for it.
            with suppress(LedgerUnavailable):
                await services.ledger.cancel(job.job_id)
        return ChatView.failed(problem.code, taken, texts, locale)


async def _end_of(job_id: str, services: Services) -> Job:
    return await end_of(job_id, services.settings.chat_wait + MARGIN, services)


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
