"""The stages as asked of a hosted model: what is sent, what may come back, how it becomes our types."""

from base64 import b64encode
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kit.text import clean, one_line
from pipeline.errors import ModelBadOutput
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.knowledge.texts import (
    Texts,
    render_answer_prompt,
    render_chat_prompt,
    render_question_prompt,
    render_vision_prompt,
)
from pipeline.models import OnText
from pipeline.models.openai.client import OpenAIClient
from pipeline.models.openai.http import OneShotBody
from pipeline.models.openai.responses import RequestTemplate, data_block
from pipeline.types import (
    Answer,
    AnswerForm,
    Candidate,
    Classification,
    JobInput,
    KnownThings,
    Locale,
    NamedThing,
    NotWaste,
    Observation,
    PaidCall,
    ParsedQuestion,
    RuleMatch,
    SourceImage,
    UnknownThing,
    Usage,
)

SHOWN_CANDIDATES = 3
MAX_STEPS = 10
MAX_THINGS = 8
MAX_PROSE = 8_000
"""Letters."""


Line = Annotated[str, Field(max_length=2000), AfterValidator(one_line)]


class Seen(BaseModel):
    """The reply of the vision model. Names are checked against the taxonomy afterwards."""

    model_config = ConfigDict(extra="forbid")

    middle_category: str
    minor_category: str | None
    situation_tags: list[str]
    confidence: float = Field(ge=0, le=1)
    candidates: list[Candidate]


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=200), AfterValidator(one_line), Field(min_length=1, max_length=60)]
    middle_category: str
    minor_category: str | None
    situation_tags: list[str]
    confidence: float = Field(ge=0, le=1)


class Read(BaseModel):
    """The reply of the model that reads a question."""

    model_config = ConfigDict(extra="forbid")

    is_about_waste: bool
    things: list[Named] = Field(max_length=MAX_THINGS)


class Written(BaseModel):
    """The reply of the text model. What else a server that ignores the schema may send is of no use, and no harm."""

    model_config = ConfigDict(extra="ignore")

    disposal_steps: Annotated[list[Annotated[Line, Field(min_length=1)]], Field(min_length=1, max_length=MAX_STEPS)]
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
        body = self._template.body(_photo_block(image), data_block({"locale": locale, "user_text": question}))
        one_shot = OneShotBody(body)
        del image, body  # While the model looks, the photo is not in memory at all.
        seen, usage = await self._client.ask(self._template, one_shot, reply=Seen)
        return self._observation(seen, usage)

    def _observation(self, seen: Seen, usage: Usage) -> Observation:
        named = {seen.middle_category, *(each.middle_category for each in seen.candidates)}
        _check_names(self._rulebook, named, seen.situation_tags, PaidCall(model=self.name, usage=usage))
        others = [each for each in seen.candidates if each.middle_category != seen.middle_category]
        first = Candidate(middle_category=seen.middle_category, confidence=seen.confidence)
        return Observation(
            classification=_place(self._rulebook, seen),
            situation_tags=tuple(dict.fromkeys(seen.situation_tags)),
            confidence=seen.confidence,
            candidates=(first, *others)[:SHOWN_CANDIDATES],
            model=self.name,
            usage=usage,
        )


class HostedText:
    """Sends the question alone: nothing is remembered from an earlier one."""

    def __init__(self, client: OpenAIClient, model: str, texts: Texts, rulebook: Rulebook) -> None:
        self.name = model
        self._client = client
        self._rulebook = rulebook
        self._template = RequestTemplate(
            client.settings,
            model=model,
            purpose="question",
            prompt=render_question_prompt(texts, rulebook),
            schema=_read_schema(rulebook),
        )

    async def read(self, question: str, locale: Locale) -> tuple[ParsedQuestion, Usage]:
        block = data_block({"locale": locale, "user_text": question})
        read, usage = await self._client.ask(self._template, self._template.body(block), reply=Read)
        return self._reading(read, usage), usage

    def _reading(self, read: Read, usage: Usage) -> ParsedQuestion:
        if not read.is_about_waste:
            return NotWaste()
        spent = PaidCall(model=self.name, usage=usage)
        for each in read.things:
            _check_names(self._rulebook, {each.middle_category}, each.situation_tags, spent)
        known = [each for each in read.things if each.middle_category != UNCLASSIFIED]
        if not known:
            return UnknownThing()
        return KnownThings(
            things=tuple(
                NamedThing(
                    name=each.name,
                    classification=_place(self._rulebook, each),
                    situation_tags=tuple(dict.fromkeys(each.situation_tags)),
                    confidence=each.confidence,
                )
                for each in known
            ),
            has_unknown=len(known) < len(read.things),
        )


class HostedAnswer:
    def __init__(self, client: OpenAIClient, model: str, texts: Texts) -> None:
        self.name = model
        self._client = client
        settings, steps, prose = client.settings, render_answer_prompt(texts), render_chat_prompt(texts)
        self._steps = RequestTemplate(settings, model=model, purpose="answer", prompt=steps, schema=_WRITTEN_SCHEMA)
        self._prose = RequestTemplate(settings, model=model, purpose="chat", prompt=prose, schema=None)

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer:
        """The rule comes before what differs from job to job: jobs of one category share that much of the prompt."""
        if job.form is AnswerForm.PROSE:
            return await self._write_prose(observation, rule, job, on_text)
        body = self._steps.body(
            self._steps.cached(data_block({"locale": job.locale, "rule": _without_source(rule)})),
            data_block({**_known(observation, rule), "user_text": job.user_input}),
        )
        written, usage = await self._client.ask(self._steps, body, reply=Written)
        return Answer(
            disposal_steps=tuple(written.disposal_steps),
            user_answer=written.user_answer,
            model=self.name,
            usage=usage,
        )

    async def _write_prose(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer:
        """The model writes what is shown; the steps are the rule's own."""
        prose = _Prose()

        async def on_delta(delta: str) -> None:
            if piece := prose.add(delta):
                await on_text(piece)

        rules = {each.key: _without_source(each) for each in (rule, *rule.others)}
        text, usage = await self._client.stream(
            self._prose,
            data_block({"locale": job.locale, "rules": rules}),
            data_block({"things": _things(observation, rule), "user_text": job.user_input}),
            temperature=job.temperature,
            on_delta=on_delta,
        )
        whole = _Prose().add(text)
        if not whole or len(whole) > MAX_PROSE:
            raise ModelBadOutput(f"prose of {len(whole)} letters", spent=PaidCall(model=self.name, usage=usage))
        steps = tuple(rule.document["steps"])
        return Answer(disposal_steps=steps, user_answer=whole, model=self.name, usage=usage)


class _Prose:
    """Cleans a text that comes in pieces, and takes the blanks off both ends."""

    def __init__(self) -> None:
        self._has_begun = False
        self._blanks = ""

    def add(self, delta: str) -> str:
        """What may be shown now: blanks wait for what comes after them."""
        text = self._blanks + clean(delta)
        if not self._has_begun:
            text = text.lstrip()
        shown = text.rstrip()
        self._blanks = text[len(shown) :]
        self._has_begun = self._has_begun or bool(shown)
        return shown


def _things(observation: Observation, rule: RuleMatch) -> list[dict[str, Any]]:
    seen: tuple[Observation | NamedThing, ...] = (observation, *observation.others)
    matches = (rule, *rule.others)
    return [
        {"name": each.name, "rule": match.key, **_known(each, match)} for each, match in zip(seen, matches, strict=True)
    ]


def _known(seen: Observation | NamedThing, rule: RuleMatch) -> dict[str, Any]:
    return {
        "category": seen.classification.middle_category,
        "minor": seen.classification.minor_category,
        "situation_tags": seen.situation_tags,
        "insufficiencies": rule.insufficiencies,
        "confidence": round(seen.confidence, 2),
    }


def _without_source(rule: RuleMatch) -> dict[str, Any]:
    """The rule as the model needs it: the source's link alone would be a quarter of its tokens."""
    return {name: part for name, part in rule.document.items() if name != "source"}


def _photo_block(image: SourceImage) -> dict[str, Any]:
    url = f"data:{image.media_type};base64,{b64encode(image.data).decode()}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _check_names(rulebook: Rulebook, middles: set[str], tags: list[str], spent: PaidCall) -> None:
    """Raises ModelBadOutput for a name that the taxonomy lacks: servers that ignore the schema exist."""
    if unknown := [*(middles - set(rulebook.middles())), *(set(tags) - set(rulebook.tags))]:
        raise ModelBadOutput(f"{len(unknown)} names that the taxonomy lacks", spent=spent)


def _place(rulebook: Rulebook, seen: Seen | Named) -> Classification:
    """No schema can say that minors depend on their middle; a foreign one tells nothing about this item."""
    minors = rulebook.minors_of(seen.middle_category)
    minor = seen.minor_category if seen.minor_category in minors else None
    return rulebook.classification(seen.middle_category, minor)


def _seen_schema(rulebook: Rulebook) -> dict[str, Any]:
    place = _place_schema(rulebook)
    candidate = _object(middle_category=place["middle_category"], confidence=place["confidence"])
    return _object(**place, candidates={"type": "array", "maxItems": SHOWN_CANDIDATES, "items": candidate})


def _read_schema(rulebook: Rulebook) -> dict[str, Any]:
    thing = _object(name={"type": "string"}, **_place_schema(rulebook))
    return _object(is_about_waste={"type": "boolean"}, things={"type": "array", "maxItems": MAX_THINGS, "items": thing})


def _place_schema(rulebook: Rulebook) -> dict[str, dict[str, Any]]:
    middles = list(rulebook.middles())
    minors = [minor for middle in middles for minor in rulebook.minors_of(middle)]
    return {
        "middle_category": {"type": "string", "enum": middles},
        "minor_category": {"type": ["string", "null"], "enum": [*minors, None]},
        "situation_tags": {"type": "array", "items": {"type": "string", "enum": list(rulebook.tags)}},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    }


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
    user_answer={"type": "string"},
)
