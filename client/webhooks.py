"""For receivers of webhooks: verify a request and parse it."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from standardwebhooks import Webhook, WebhookVerificationError

from client.models import Job


class WebhookRefused(Exception):
    """The signature matches no secret, is older than five minutes, or there is none. Answer with a 400."""


class JobEnded(BaseModel):
    """A verified webhook. `id` is the same at each attempt: use it to recognise duplicates."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    type: Literal["job.completed", "job.failed", "job.cancelled"]
    timestamp: datetime
    job: Job = Field(validation_alias="data")


def verify(body: bytes, headers: Mapping[str, str], *secrets: str) -> JobEnded:
    """Verify the raw body and the headers of a request, and return the event. Raises WebhookRefused.

    `secrets`: all secrets (`whsec_…`) in use, so that they can be rotated.
    """
    named = {name.lower(): value for name, value in headers.items()}
    for verifier in [Webhook(secret) for secret in secrets]:
        # The package decodes headers unguarded: a malformed one raises some ValueError.
        with suppress(WebhookVerificationError, ValueError):
            message = verifier.verify(body, named)
            return JobEnded.model_validate({"id": named["webhook-id"], **message})
    raise WebhookRefused
