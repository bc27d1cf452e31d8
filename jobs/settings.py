"""Settings of queue and ledger, shared by the api and the workers."""

import base64
import binascii
import re
from contextlib import suppress
from typing import Annotated, Self, assert_never

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from jobs.model import OverBudget, Priority
from jobs.redis.url import is_redis, sentinels
from kit.environment import EnvironmentSettings

WEBHOOK_SECRET = re.compile(r"whsec_([A-Za-z0-9+/]+={0,2})")
KEY_BYTES = range(24, 65)
"""Standard Webhooks asks for 192 to 512 bits."""

Step = Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False)]


class JobsSettings(EnvironmentSettings):
    """Queue and ledger, of api and workers. Both URLs may carry a password, so they are secrets."""

    model_config = SettingsConfigDict(env_prefix="WORKERS_")

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias="REDIS_URL",
        description="Ledger and event feed: `redis://`, `rediss://…?ssl_ca_certs=FILE` or "
        "`sentinel://:password@host:26379,other:26379/master/0`.",
    )
    broker_url: SecretStr | None = Field(
        None,
        validation_alias="BROKER_URL",
        description="Celery's broker; REDIS_URL when not set. The same forms, or `amqp://` for RabbitMQ.",
    )
    result_ttl: int = Field(
        86_400, ge=1, validation_alias="RESULT_TTL", description="How long a finished job can be read."
    )
    result_cache_ttl: int = Field(
        3600,
        ge=0,
        validation_alias="RESULT_CACHE_TTL",
        description="How long the same photo with the same question costs no second model call; 0: never reused.",
    )
    model_budget_usd: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        validation_alias="MODEL_BUDGET_USD",
        description="US dollars that hosted models may cost a day (UTC); when not set, any.",
    )
    model_budget_exceeded: OverBudget = Field(
        OverBudget.LOCAL,
        validation_alias="MODEL_BUDGET_EXCEEDED",
        description="What then happens to jobs until midnight UTC: `local` answers them by the local model, marked as "
        "degraded; `refuse` fails them with `model.budget_exhausted`.",
    )
    job_deadline: float = Field(120.0, gt=0, le=3600, description="A job's default deadline, from submit to end.")
    max_deadline: float = Field(600.0, gt=0, le=3600, description="The longest deadline a client may ask for.")
    lease: float = Field(15.0, ge=1, description="How long a worker holds a job without renewing its claim.")
    max_attempts: int = Field(3, ge=1, description="A job that took down its worker this often has failed.")
    drain: float = Field(5.0, ge=0, description="On SIGTERM, seconds for jobs in flight before they go back.")
    redis_timeout: float = Field(2.5, gt=0, description="Limit for one command to Redis, and for one message.")
    queue: str = Field("bunri.jobs", description="Name of the Celery queue; bulk jobs go to this name with `.bulk`.")
    webhook_secrets: SecretStr | None = Field(
        None,
        description="Secrets (whsec_…) that sign webhooks, comma-separated, newest first; without one there are none.",
    )
    webhook_schedule: tuple[Step, ...] = Field(
        (5.0, 60.0, 300.0, 1800.0, 7200.0, 21_600.0, 54_000.0),
        min_length=1,
        max_length=50,
        description="JSON list: seconds to wait after each failed attempt to deliver a webhook.",
    )

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        if not is_redis(value.get_secret_value()):
            raise ValueError("not a redis://, rediss://, unix:// or sentinel:// URL")
        sentinels(value.get_secret_value())
        return value

    @field_validator("broker_url")
    @classmethod
    def _is_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            sentinels(value.get_secret_value())
        return value

    @field_validator("webhook_secrets")
    @classmethod
    def _are_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            webhook_keys(value)
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.job_deadline > self.max_deadline:
            raise ValueError("WORKERS_JOB_DEADLINE is above WORKERS_MAX_DEADLINE")
        return self

    def queue_of(self, priority: Priority) -> str:
        """The Celery queue of a lane. Sorted by name the interactive one comes first, which its consumer relies on."""
        match priority:
            case Priority.INTERACTIVE:
                return self.queue
            case Priority.BULK:
                return f"{self.queue}.bulk"
            case _:
                assert_never(priority)

    @property
    def queues(self) -> list[str]:
        """The queues of all lanes."""
        return [self.queue_of(priority) for priority in Priority]

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """Keys that sign webhooks, newest first."""
        return webhook_keys(self.webhook_secrets) if self.webhook_secrets else ()


def webhook_keys(secrets: SecretStr) -> tuple[bytes, ...]:
    """The keys of comma-separated secrets as Standard Webhooks writes them. Raises ValueError, which quotes none."""
    entries = [entry.strip() for entry in secrets.get_secret_value().split(",")]
    return tuple(_webhook_key(number, entry) for number, entry in enumerate(entries, start=1))


def _webhook_key(number: int, entry: str) -> bytes:
    secret = WEBHOOK_SECRET.fullmatch(entry)
    with suppress(binascii.Error):
        if secret and len(key := base64.b64decode(secret[1])) in KEY_BYTES:
            return key
    raise ValueError(f"entry {number} is not whsec_ and 24 to 64 bytes in base64")
