"""Settings of the api. Built in `create_app()` only."""

import re
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from kit.environment import EnvironmentSettings

ORIGIN = re.compile(r"https?://[^/?#@*\s]+")


class ApiSettings(EnvironmentSettings):
    """The API. Names that people share carry no prefix; the rest carry `API_`."""

    model_config = SettingsConfigDict(env_prefix="API_")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    public_url: str | None = Field(
        None,
        pattern="^https?://[^/?#]+$",
        description="The API's own origin in upload links, behind a proxy; by default the one that was asked.",
    )
    cors_origins: str = Field(
        "http://localhost:3000,http://localhost:5173",
        validation_alias="CORS_ORIGINS",
        description="Web origins that may call the API with credentials, comma-separated, exact.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="LOG_LEVEL", description="Least severe event that is logged."
    )
    max_body_bytes: int = Field(65_536, gt=0, description="Largest request body.")
    max_wait: float = Field(60.0, gt=0, le=600, description="Longest wait a client may ask for; more is cut to this.")
    classify_wait: float = Field(
        55.0, gt=0, le=600, description="How long the synchronous /scan/classify waits for its job."
    )
    chat_wait: float = Field(
        60.0, gt=0, le=600, description="How long /chat/messages waits for its answer, which then is given up."
    )
    max_queued: int = Field(
        10_000,
        gt=0,
        description="With so many jobs ahead of it a new one is refused; bulk jobs are ahead of bulk only.",
    )
    version_grace: float = Field(
        300.0,
        ge=0,
        description="How long workers may have another pipeline version, as in a rollout, before /readyz is red.",
    )
    rate_limit: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Submits a minute that one caller (address) may make in the long run; 0: any.",
    )
    rate_burst: int = Field(30, ge=1, le=1_000_000, description="Submits that a caller may make at once.")
    forwarded_allow_ips: str = Field(
        "127.0.0.1",
        validation_alias="FORWARDED_ALLOW_IPS",
        description="Proxies whose X-Forwarded-For is believed, comma-separated addresses and networks.",
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        if wrong := [part for part in _parts(value) if not ORIGIN.fullmatch(part)]:
            raise ValueError(f"{len(wrong)} of the entries is no origin like https://app.example")
        return value

    @property
    def origins(self) -> list[str]:
        return _parts(self.cors_origins)


def _parts(text: str) -> list[str]:
    return [part for part in (piece.strip() for piece in text.split(",")) if part]
