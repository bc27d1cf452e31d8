"""Routes that scans and chats share: show a job, show its result, cancel it."""

from fastapi import APIRouter, Response

from api.deps import Services, ServicesDep, Wait
from api.http import direct_route, openapi
from api.http.openapi import ok, problems
from api.http.problems import Problem
from api.http.responses import json_response
from api.jobs import find_job, missing_job
from api.paths import API
from api.schemas.jobs import ProcessingView, ResultView
from jobs.model import Job, JobKind, JobStatus
from jobs.view import JobView

POLL_AFTER_SECONDS = 2
"""Retry-After of a result that is not there yet, for clients that poll."""


def operation_name(name: str, kind: JobKind) -> str:
    """The operation id: the bare name for scans, as generated clients have it, `name_kind` for other kinds."""
    return name if kind is JobKind.SCAN else f"{name}_{kind}"


def job_routes(kind: JobKind) -> APIRouter:
    """Show, result and cancel of this kind of job."""
    router = openapi.router(f"{API}/{kind}", kind.value)

    @direct_route.add(
        router,
        "GET",
        "/{job_id}",
        name=operation_name("show", kind),
        responses={200: ok(JobView, "The job"), **problems(404, 410, 422, 503)},
    )
    async def show(job_id: str, services: ServicesDep, wait: Wait = 0) -> Response:
        """The whole job; with `wait`, when it has ended or the wait is over."""
        job = await services.backlog_reader.with_wait(await find_job(job_id, kind, services, wait))
        return json_response(JobView.of(job, services.knowledge.texts))

    @direct_route.add(
        router,
        "GET",
        "/{job_id}/result",
        name=operation_name("result", kind),
        responses={
            200: ok(ResultView, "The job has ended"),
            202: ok(ProcessingView, "Not yet"),
            **problems(404, 410, 422, 503),
        },
    )
    async def result(job_id: str, services: ServicesDep, wait: Wait = 0) -> Response:
        """How the job ended. A failed job is 200, too, with `error` and without `pipeline_result`."""
        return result_response(await find_job(job_id, kind, services, wait), services)

    @router.post(
        "/{job_id}/cancel",
        name=operation_name("cancel", kind),
        status_code=202,
        responses={202: ok(JobView, "The job is cancelled"), **problems(404, 409, 410, 503)},
    )
    async def cancel(job_id: str, services: ServicesDep) -> Response:
        """Stop the job. Doing it twice is fine; a job that has completed or failed is 409."""
        await find_job(job_id, kind, services)
        job = await services.ledger.submissions.cancel(job_id)
        if job is None:
            raise missing_job(job_id, services)
        if job.status is not JobStatus.CANCELLED:
            raise Problem("job.finished")
        return json_response(JobView.of(job, services.knowledge.texts), status=202)

    return router


def result_response(job: Job, services: Services) -> Response:
    texts = services.knowledge.texts
    if job.status.is_final:
        return json_response(ResultView.of(job, texts))
    return json_response(ProcessingView.of(job, texts), status=202, headers={"Retry-After": str(POLL_AFTER_SECONDS)})
