"""Typed client of the API. Imports nothing of api, workers or cli."""

from client.bunri import ApiProblem, BunriClient, StreamLost
from client.models import (
    Attempt,
    ChatAnswer,
    Delivery,
    Event,
    Job,
    JobError,
    Pipeline,
    PipelineResult,
    Submitted,
    Upload,
    Worker,
)
from client.webhooks import JobEnded, WebhookRefused, verify

__all__ = [
    "ApiProblem",
    "Attempt",
    "BunriClient",
    "ChatAnswer",
    "Delivery",
    "Event",
    "Job",
    "JobEnded",
    "JobError",
    "Pipeline",
    "PipelineResult",
    "StreamLost",
    "Submitted",
    "Upload",
    "WebhookRefused",
    "Worker",
    "verify",
]
