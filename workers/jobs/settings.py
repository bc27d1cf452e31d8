"""Settings of queue and ledger, shared by the api and the workers."""

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workers.jobs.location import is_redis, sentinels


class JobsSettings(BaseSettings):
    """Queue and ledger, of api and workers. Both URLs may carry a password, so they are secrets."""

    model_config = SettingsConfigDict(
        env_prefix="WORKERS_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

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
    job_deadline: float = Field(120.0, gt=0, le=3600, description="A job's default deadline, from submit to end.")
    max_deadline: float = Field(600.0, gt=0, le=3600, description="The longest deadline a client may ask for.")
    lease: float = Field(15.0, ge=1, description="How long a worker holds a job without renewing its claim.")
    max_attempts: int = Field(3, ge=1, description="A job that took down its worker this often has failed.")
    drain: float = Field(5.0, ge=0, description="On SIGTERM, seconds for jobs in flight before they go back.")
    redis_timeout: float = Field(2.5, gt=0, description="Limit for one command to Redis, and for one message.")
    queue: str = Field("bunri.jobs", description="Name of the Celery queue.")

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

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.job_deadline > self.max_deadline:
            raise ValueError("WORKERS_JOB_DEADLINE is above WORKERS_MAX_DEADLINE")
        return self

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()
