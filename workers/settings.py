"""Settings of a worker process itself; queue and ledger have theirs in `jobs.settings`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from kit.environment import EnvironmentSettings


class WorkerSettings(EnvironmentSettings):
    """Worker processes."""

    model_config = SettingsConfigDict(env_prefix="WORKERS_")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="LOG_LEVEL", description="Least severe event that is logged."
    )
    fallback_model: Literal["local"] | None = Field(
        None,
        validation_alias="FALLBACK_MODEL",
        description="`local`: answers, marked as degraded, where a hosted model cannot; else such jobs wait or fail.",
    )
    model_rpm: int = Field(
        0, ge=0, description="Most calls a minute to each hosted model, of all workers together; 0: no limit."
    )
