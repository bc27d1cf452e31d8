"""Bodies that submit a job."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from jobs.model import Priority
from pipeline.storage import KEY
from pipeline.types import Locale

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Request(BaseModel):
    """Older clients send fields that we never had or no longer have: they are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ScanRequest(Request):
    image_url: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        None,
        description="http or https link to the photo; its query stays secret. One of this and `image_key`.",
        json_schema_extra={"examples": ["https://photos.example/cup.jpg"]},
    )
    image_key: Annotated[str, StringConstraints(pattern=f"^{KEY.pattern}$")] | None = Field(
        None, description="The `key` of an upload."
    )
    user_input: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        None, description="The user's question or remark about the photo."
    )
    model: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        None, description="`local` or one of the configured models (see /api/v1/pipeline)."
    )
    locale: Locale = Field(Locale.KO, description="Language of every text in the result.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Echoed back as it came, not escaped."
    )
    priority: Priority = Field(
        Priority.INTERACTIVE,
        description="`bulk`: work that may take its time. It lets interactive jobs pass, all but one in eight.",
    )
    callback_url: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        None,
        description="http or https address that is sent the job when it has ended (a webhook); all of it stays secret.",
        json_schema_extra={"examples": ["https://hooks.example/bunri"]},
    )


class ChatRequest(Request):
    """One question, whole in itself: a `session_id`, and whatever else older clients send, is ignored."""

    message: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        "",
        description="The question; with a photo it may be empty.",
        json_schema_extra={"examples": ["깨진 유리컵은?"]},
    )
    image_url: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        None, description="http or https link to a photo; its query stays secret."
    )
    image_key: Annotated[str, StringConstraints(pattern=f"^{KEY.pattern}$")] | None = Field(
        None, description="The `key` of an upload."
    )
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="For models that take one: PIPELINE_REASONING_EFFORT is `off`."
    )
    model: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        None, description="`local` or one of the configured models (see /api/v1/pipeline)."
    )
    locale: Locale = Field(Locale.KO, description="Language of the answer.")


class ClassifyRequest(Request):
    """The legacy synchronous request."""

    image_url: Annotated[str, StringConstraints(max_length=8192)] | None = None
    user_input: Annotated[str, StringConstraints(max_length=2000)] | None = None
