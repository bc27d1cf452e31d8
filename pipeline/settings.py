"""Settings of the pipeline. Created in `build_pipeline()` and by the command line, never on import."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import DirectoryPath, Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from kit.address import AddressGuard
from kit.environment import EnvironmentSettings
from pipeline.types import Strict

RESOURCES = Path(__file__).parent / "resources"


class ModelPrice(Strict):
    """US dollars per million tokens. `cache_write` is for input that the provider stores in its prompt cache."""

    input: float = Field(ge=0)
    cached: float = Field(ge=0)
    cache_write: float = Field(ge=0)
    output: float = Field(ge=0)


PRICES = {
    "gpt-5.6-terra": ModelPrice(input=2.0, cached=0.2, cache_write=2.5, output=12.0),
    "gpt-5.6-luna": ModelPrice(input=0.2, cached=0.02, cache_write=0.25, output=1.2),
}
"""From developers.openai.com/api/docs/models, November 2026, for requests under 272 000 tokens."""


class PipelineSettings(EnvironmentSettings):
    """Models, intake, uploads. Common names (OPENAI_API_KEY, S3_BUCKET) have no prefix, the others have `PIPELINE_`."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_")

    resources: DirectoryPath = Field(
        RESOURCES, description="Folder of prompts, taxonomy, rulebook, messages and, if it has one, local model."
    )
    watch_every: float = Field(
        2.0, gt=0, le=60, description="How often a process looks whether these files have changed."
    )

    # The model
    openai_api_key: SecretStr | None = Field(
        None, validation_alias="OPENAI_API_KEY", description="Without a key the local model answers."
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        pattern="^https?://",
        description="Any server that speaks the OpenAI Responses API.",
    )
    vision_model: str = Field(
        "gpt-5.6-terra", validation_alias="VISION_MODEL", description="Model that looks at the photo."
    )
    text_model: str = Field("gpt-5.6-terra", validation_alias="TEXT_MODEL", description="Model that writes the answer.")
    model_timeout: float = Field(30.0, gt=0, le=600, description="Limit for one model call, first byte to last.")
    model_max_response_bytes: int = Field(1_000_000, gt=0, description="A longer model response is bad output.")
    model_max_output_tokens: int = Field(4_000, gt=0, description="Most tokens of one reply, reasoning included.")
    reasoning_effort: Literal["off", "none", "minimal", "low", "medium", "high"] = Field(
        "low", description="How long the model thinks; `off` sends nothing, for a server that does not know the field."
    )
    prompt_cache: Literal["auto", "key", "off"] = Field(
        "auto",
        description="Prompt-cache controls sent: explicit breakpoints where the model has them, only a key, or none.",
    )
    prices: Annotated[dict[str, ModelPrice], NoDecode] = Field(
        PRICES, description="JSON: model → US dollars per million tokens, for the cost in results."
    )
    local_threshold: float = Field(
        0.8, ge=0, le=1, description="Below this confidence the local model abstains and says 미분류."
    )

    # Intake
    fetch_allow: str = Field(
        "",
        validation_alias="FETCH_ALLOW",
        description="Hosts, CIDRs and host:port pairs exempt from the address guard, comma-separated.",
    )
    fetch_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (80, 443, 8080, 8443), description="JSON list: ports an image URL may name."
    )
    fetch_connect_timeout: float = Field(5.0, gt=0, description="Limit to connect to the origin.")
    fetch_read_timeout: float = Field(10.0, gt=0, description="Limit between two pieces of the body.")
    fetch_total_timeout: float = Field(20.0, gt=0, description="Limit for the whole fetch, redirects included.")
    fetch_max_bytes: int = Field(20 * 1024 * 1024, gt=0, description="Largest image file.")
    fetch_concurrency: int = Field(
        32, ge=1, description="Photos that one worker process fetches and decodes at once; further jobs wait."
    )
    fetch_max_redirects: int = Field(3, ge=0, le=10, description="Redirects followed.")
    image_max_pixels: int = Field(50_000_000, gt=0, description="Most pixels of a JPEG.")
    image_max_pixels_other: int = Field(25_000_000, gt=0, description="Most pixels of a format that decodes whole.")
    image_long_side: int = Field(1024, ge=256, le=2048, description="Target for the long side after shrinking.")
    image_heic: bool = Field(default=True, description="Whether HEIC and HEIF photos are accepted.")
    image_processes: int = Field(1, ge=1, le=16, description="Decode processes of each worker process.")
    image_cpu_seconds: float = Field(5.0, gt=0, description="CPU time one image may take.")
    image_memory_bytes: int = Field(1024**3, gt=0, description="Memory one decode process may take.")

    # Uploads
    s3_bucket: str | None = Field(
        None, validation_alias="S3_BUCKET", description="Keeps uploads there; AWS_* are boto3's own. Else a directory."
    )
    s3_endpoint_url: str | None = Field(
        None, validation_alias="S3_ENDPOINT_URL", pattern="^https?://", description="An S3 other than Amazon's."
    )
    s3_addressing: Literal["path", "virtual"] | None = Field(
        None, description="Bucket in the path or in the host name; by default path with S3_ENDPOINT_URL, else virtual."
    )
    upload_dir: Path = Field(Path(".bunri/uploads"), description="Uploads without S3: api and workers must share it.")
    upload_ttl: int = Field(86_400, ge=60, validation_alias="UPLOAD_TTL", description="How long an upload is kept.")
    upload_link_ttl: int = Field(900, ge=1, le=604_800, description="How long upload_url and cdn_url are valid.")

    @field_validator("prices", "fetch_ports", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:  # str from the environment, the parsed value from a test
        """Parsed here because pydantic-settings would stop at invalid JSON and not report other mistakes."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("is not JSON") from None

    @field_validator("vision_model", "text_model")
    @classmethod
    def _is_hosted(cls, value: str) -> str:
        if value == "local":
            raise ValueError("`local` is the local model's own name; leave out OPENAI_API_KEY to use it alone")
        return value

    @field_validator("fetch_allow")
    @classmethod
    def _can_be_read(cls, value: str) -> str:
        AddressGuard(value, ())
        return value
