"""Webhooks as clients see them: a job's delivery attempts, and a request to deliver again."""

from typing import Annotated

import structlog
from fastapi import FastAPI, Header, Response

from api.deps import ServicesDep
from api.http import openapi
from api.http.openapi import ok, problems
from api.http.problems import Problem
from api.http.responses import json_response
from api.jobs import find_job
from api.paths import API
from api.schemas.deliveries import DeliveryView
from jobs.model import JobKind
from jobs.view import WebhookView

log = structlog.get_logger()

router = openapi.router(f"{API}/scan", "webhooks")


@router.get(
    "/{job_id}/deliveries",
    responses={200: ok(DeliveryView, "Every attempt, the first one first"), **problems(404, 410, 503)},
)
async def deliveries(job_id: str, services: ServicesDep) -> Response:
    """What became of the job's webhook: each attempt with its status or error, and when the next one is planned."""
    job = await find_job(job_id, JobKind.SCAN, services)
    return json_response(DeliveryView.of(job, await services.deliveries.of(job_id)))


@router.post(
    "/{job_id}/deliveries",
    status_code=202,
    responses={202: ok(DeliveryView, "An attempt is due now"), **problems(404, 409, 410, 503)},
)
async def resend(job_id: str, services: ServicesDep) -> Response:
    """Deliver the job's webhook again, now and with the schedule from its start, whatever became of it before.

    Whoever knows the job's id may ask for it. A job that has not ended is delivered when it has.
    """
    job = await find_job(job_id, JobKind.SCAN, services)
    if not await services.deliveries.resend(job_id):
        raise Problem("delivery.no_callback")
    log.info("delivery.requested", job_id=job_id)
    return json_response(DeliveryView.of(job, await services.deliveries.of(job_id)), status=202)


def describe(app: FastAPI) -> None:
    """Add the webhook that a `callback_url` receives to the OpenAPI description."""

    @app.webhooks.post(
        "job-ended",
        status_code=200,
        responses={"2XX": {"description": "Taken"}, 410: {"description": "Send nothing more about this job"}},
        tags=["webhooks"],
    )
    async def webhook(
        body: WebhookView,
        message_id: Annotated[str, Header(alias="webhook-id", description="The job's id, the same at each attempt.")],
        timestamp: Annotated[int, Header(alias="webhook-timestamp", description="Unix seconds of this attempt.")],
        signature: Annotated[str, Header(alias="webhook-signature", description="`v1,…`, one for each secret.")],
    ) -> None:
        """The job has ended. Signed by Standard Webhooks; docs/webhooks.md says how to verify it."""
