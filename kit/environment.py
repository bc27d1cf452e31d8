"""Base class of all settings: environment variables and `.env`."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class EnvironmentSettings(BaseSettings):
    """Immutable; an empty variable counts as not set; validation errors show no values, which may be secrets.

    A subclass names its prefix: `model_config = SettingsConfigDict(env_prefix="API_")`.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )
