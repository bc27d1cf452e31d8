"""The two stages as asked of a hosted model: what is sent, what may come back, how it becomes our types."""

from base64 import b64encode
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.errors import ModelBadOutput
from pipeline.model.openai import OpenAIClient
from pipeline.model.responses import RequestTemplate, data_block
from pipeline.rulebook import Rulebook
from pipeline.texts import Texts, render_answer_prompt, render_vision_prompt
from pipeline.types import Answer, Candidate, Locale, Observation, PaidCall, RuleMatch, SourceImage, Usage

SHOWN_CANDIDATES = 3
MAX_STEPS = 10


def _one_line(text: str) -> str:
    """One line without control characters: it is shown in tables, logs and pages."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


Line = Annotated[str, Field(max_length=2000), AfterValidator(_one_line)]


class Seen(BaseModel):
    """The reply of the vision model. Names are checked against the taxonomy afterwards."""

    model_config = ConfigDict(extra="forbid")

    middle_category: str
    minor_category: str | None
    situation_tags: list[str]
    confidence: float = Field(ge=0, le=1)
    candidates: list[Candidate]


class Written(BaseModel):
    """The reply of the text model."""

    model_config = ConfigDict(extra="forbid")

    disposal_steps: Annotated[list[Annotated[Line, Field(min_length=1)]], Field(min_length=1, max_length=MAX_STEPS)]
    insufficiencies: Annotated[list[Line], Field(max_length=MAX_STEPS)]
    user_answer: Annotated[Line, Field(min_length=1)]


class HostedVision:
    """Sends the bytes we checked, never the client's URL."""

    def __init__(self, client: OpenAIClient, model: str, texts: Texts, rulebook: Rulebook) -> None:
        self.name = model
        self._client = client
        self._rulebook = rulebook
        self._template = RequestTemplate(
            client.settings,
            model=model,
            purpose="vision",
            prompt=render_vision_prompt(texts, rulebook),
            schema=_seen_schema(rulebook),
        )

    async def observe(self, image: SourceImage, *, question: str, locale: Locale) -> Observation:
        photo = f"data:{image.media_type};base64,{b64encode(image.data).decode()}"
        seen, usage = await self._client.ask(
            self._template,
            {"type": "input_image", "image_url": photo, "detail": "auto"},
            data_block({"locale": locale, "user_text": question}),
            reply=Seen,
        )
        return self._observation(seen, usage)

    def _observation(self, seen: Seen, usage: Usage) -> Observation:
        middles = self._rulebook.middles()
        named = {seen.middle_category, *(each.middle_category for each in seen.candidates)}
        if unknown := [*(named - set(middles)), *(set(seen.situation_tags) - set(self._rulebook.tags))]:
            raise ModelBadOutput(
                f"{len(unknown)} names that the taxonomy lacks", spent=PaidCall(model=self.name, usage=usage)
            )
        # No schema can say that minors depend on their middle; a foreign one tells nothing about this item.
        minors = self._rulebook.minors_of(seen.middle_category)
        minor = seen.minor_category if seen.minor_category in minors else None
        others = [each for each in seen.candidates if each.middle_category != seen.middle_category]
        first = Candidate(middle_category=seen.middle_category, confidence=seen.confidence)
        return Observation(
            classification=self._rulebook.classification(seen.middle_category, minor),
            situation_tags=tuple(dict.fromkeys(seen.situation_tags)),
            confidence=seen.confidence,
            candidates=(first, *others)[:SHOWN_CANDIDATES],
            model=self.name,
            usage=usage,
        )


class HostedAnswer:
    def __init__(self, client: OpenAIClient, model: str, texts: Texts) -> None:
        self.name = model
        self._client = client
        self._template = RequestTemplate(
            client.settings, model=model, purpose="answer", prompt=render_answer_prompt(texts), schema=_WRITTEN_SCHEMA
        )

    async def write(self, observation: Observation, rule: RuleMatch, *, question: str, locale: Locale) -> Answer:
        """The rule comes before what differs from job to job: jobs of one category share that much of the prompt."""
        written, usage = await self._client.ask(
            self._template,
            data_block({"locale": locale, "rule": rule.document}),
            data_block(
                {
                    "classification": observation.classification.model_dump(),
                    "situation_tags": observation.situation_tags,
                    "confidence": observation.confidence,
                    "user_text": question,
                }
            ),
            reply=Written,
        )
        return Answer(
            disposal_steps=tuple(written.disposal_steps),
            insufficiencies=tuple(line for line in written.insufficiencies if line),
            user_answer=written.user_answer,
            model=self.name,
            usage=usage,
        )


def _seen_schema(rulebook: Rulebook) -> dict[str, Any]:
    middles = list(rulebook.middles())
    minors = [minor for middle in middles for minor in rulebook.minors_of(middle)]
    middle = {"type": "string", "enum": middles}
    confidence = {"type": "number", "minimum": 0, "maximum": 1}
    return _object(
        middle_category=middle,
        minor_category={"type": ["string", "null"], "enum": [*minors, None]},
        situation_tags={"type": "array", "items": {"type": "string", "enum": list(rulebook.tags)}},
        confidence=confidence,
        candidates={
            "type": "array",
            "maxItems": SHOWN_CANDIDATES,
            "items": _object(middle_category=middle, confidence=confidence),
        },
    )


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """As strict structured output wants it: every property required, no other allowed."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_WRITTEN_SCHEMA = _object(
    disposal_steps={"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_STEPS},
    insufficiencies={"type": "array", "items": {"type": "string"}, "maxItems": MAX_STEPS},
    user_answer={"type": "string"},
)
