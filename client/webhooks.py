"""For receivers of webhooks: is this request really Bunri's, and what does it say?"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from standardwebhooks import Webhook, WebhookVerificationError

from client.models import Job


class WebhookRefused(Exception):
    """Signed with none of the secrets, older than five minutes, or no webhook at all. Answer it with a 400."""


class JobEnded(BaseModel):
    """A verified webhook. `id` is the same at each attempt: what came before is known by it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    type: Literal["job.completed", "job.failed", "job.cancelled"]
    timestamp: datetime
    job: Job = Field(validation_alias="data")


def verify(body: bytes, headers: Mapping[str, str], *secrets: str) -> JobEnded:
    """What a request says, from its body just as it came and its headers. Raises WebhookRefused.

    Give each secret (`whsec_…`) that may be in use while they rotate.
    """
    named = {name.lower(): value for name, value in headers.items()}
    for verifier in [Webhook(secret) for secret in secrets]:
        # The package decodes what it was sent without a guard, so a malformed header is a ValueError of any kind.
        with suppress(WebhookVerificationError, ValueError):
            message = verifier.verify(body, named)
            return JobEnded.model_validate({"id": named["webhook-id"], **message})
    raise WebhookRefused
