"""The stages on a hosted model: prompts, reply schemas, and the checks that turn a reply into our types. Knows no
provider.
"""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

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
from pipeline.models import MAX_CANDIDATES, OnText
from pipeline.models.provider import HostedClient, Prompt, data_block
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

MAX_STEPS = 10
MAX_ITEMS = 8
MAX_PROSE = 8_000
"""Characters."""

Line = Annotated[str, Field(max_length=2000), AfterValidator(one_line)]


class VisionReply(BaseModel):
    """The reply of the vision model. Names are checked against the taxonomy afterwards."""

    model_config = ConfigDict(extra="forbid")

    middle_category: str
    minor_category: str | None
    situation_tags: list[str]
    confidence: float = Field(ge=0, le=1)
    candidates: list[Candidate]


class NamedItem(BaseModel):
    """An item that a question names."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=200), AfterValidator(one_line), Field(min_length=1, max_length=60)]
    middle_category: str
    minor_category: str | None
    situation_tags: list[str]
    confidence: float = Field(ge=0, le=1)


class QuestionReply(BaseModel):
    """The reply of the model that reads a question."""

    model_config = ConfigDict(extra="forbid")

    is_about_waste: bool
    things: list[NamedItem] = Field(max_length=MAX_ITEMS)


class AnswerReply(BaseModel):
    """The reply of the text model. Fields that a server which ignores the schema adds are dropped."""

    model_config = ConfigDict(extra="ignore")

    disposal_steps: Annotated[list[Annotated[Line, Field(min_length=1)]], Field(min_length=1, max_length=MAX_STEPS)]
    user_answer: Annotated[Line, Field(min_length=1)]


ReplyModel = TypeVar("ReplyModel", bound=BaseModel)


class HostedVision:
    def __init__(self, client: HostedClient, model: str, texts: Texts, rulebook: Rulebook) -> None:
        self.name = model
        self._rulebook = rulebook
        system = render_vision_prompt(texts, rulebook)
        self._prompt = client.prepare(Prompt(model, "vision", system, _vision_schema(rulebook)))

    async def observe(self, image: SourceImage, *, question: str, locale: Locale) -> Observation:
        asked = self._prompt.ask(image, data_block({"locale": locale, "user_text": question}))
        del image  # While the model works, the photo is not in memory at all.
        text, usage = await asked
        spent = PaidCall(model=self.name, usage=usage)
        return self._observation(_validated(VisionReply, text, spent), spent)

    def _observation(self, reply: VisionReply, spent: PaidCall) -> Observation:
        middles = {reply.middle_category, *(each.middle_category for each in reply.candidates)}
        _check_names(self._rulebook, middles, reply.situation_tags, spent)
        others = [each for each in reply.candidates if each.middle_category != reply.middle_category]
        first = Candidate(middle_category=reply.middle_category, confidence=reply.confidence)
        return Observation(
            classification=_classification(self._rulebook, reply),
            situation_tags=tuple(dict.fromkeys(reply.situation_tags)),
            confidence=reply.confidence,
            candidates=(first, *others)[:MAX_CANDIDATES],
            model=self.name,
            usage=spent.usage,
        )


class HostedText:
    """Sends the question alone, without earlier ones."""

    def __init__(self, client: HostedClient, model: str, texts: Texts, rulebook: Rulebook) -> None:
        self.name = model
        self._rulebook = rulebook
        system = render_question_prompt(texts, rulebook)
        self._prompt = client.prepare(Prompt(model, "question", system, _question_schema(rulebook)))

    async def read(self, question: str, locale: Locale) -> tuple[ParsedQuestion, Usage]:
        text, usage = await self._prompt.ask(data_block({"locale": locale, "user_text": question}))
        spent = PaidCall(model=self.name, usage=usage)
        return self._reading(_validated(QuestionReply, text, spent), spent), usage

    def _reading(self, reply: QuestionReply, spent: PaidCall) -> ParsedQuestion:
        if not reply.is_about_waste:
            return NotWaste()
        for each in reply.things:
            _check_names(self._rulebook, {each.middle_category}, each.situation_tags, spent)
        known = [each for each in reply.things if each.middle_category != UNCLASSIFIED]
        if not known:
            return UnknownThing()
        return KnownThings(
            things=tuple(
                NamedThing(
                    name=each.name,
                    classification=_classification(self._rulebook, each),
                    situation_tags=tuple(dict.fromkeys(each.situation_tags)),
                    confidence=each.confidence,
                )
                for each in known
            ),
            has_unknown=len(known) < len(reply.things),
        )


class HostedAnswer:
    def __init__(self, client: HostedClient, model: str, texts: Texts) -> None:
        self.name = model
        self._steps = client.prepare(Prompt(model, "answer", render_answer_prompt(texts), _ANSWER_SCHEMA))
        self._prose = client.prepare(Prompt(model, "chat", render_chat_prompt(texts), None))

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer:
        """The rule comes before what differs from job to job: jobs of one category share that much of the prompt."""
        if job.form is AnswerForm.PROSE:
            return await self._write_prose(observation, rule, job, on_text)
        text, usage = await self._steps.ask(
            data_block({"locale": job.locale, "rule": _without_source(rule)}, is_cacheable=True),
            data_block({**_facts(observation, rule), "user_text": job.user_input}),
        )
        reply = _validated(AnswerReply, text, PaidCall(model=self.name, usage=usage))
        return Answer(
            disposal_steps=tuple(reply.disposal_steps),
            user_answer=reply.user_answer,
            model=self.name,
            usage=usage,
        )

    async def _write_prose(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer:
        """The model writes the text that is shown; the steps are the rule's own."""
        streamed = ProseCleaner()

        async def on_delta(delta: str) -> None:
            if piece := streamed.add(delta):
                await on_text(piece)

        rules = {each.key: _without_source(each) for each in (rule, *rule.others)}
        text, usage = await self._prose.stream(
            data_block({"locale": job.locale, "rules": rules}),
            data_block({"things": _items(observation, rule), "user_text": job.user_input}),
            temperature=job.temperature,
            on_delta=on_delta,
        )
        whole = ProseCleaner().add(text)
        if not whole or len(whole) > MAX_PROSE:
            raise ModelBadOutput(f"prose of {len(whole)} characters", spent=PaidCall(model=self.name, usage=usage))
        steps = tuple(rule.document["steps"])
        return Answer(disposal_steps=steps, user_answer=whole, model=self.name, usage=usage)


class ProseCleaner:
    """Cleans a text that arrives in pieces, and strips blanks from both of its ends."""

    def __init__(self) -> None:
        self._has_begun = False
        self._blanks = ""

    def add(self, delta: str) -> str:
        """The text that may be shown now: blanks are held back until a character follows them."""
        text = self._blanks + clean(delta)
        if not self._has_begun:
            text = text.lstrip()
        shown = text.rstrip()
        self._blanks = text[len(shown) :]
        self._has_begun = self._has_begun or bool(shown)
        return shown


def _validated(kind: type[ReplyModel], text: str, spent: PaidCall) -> ReplyModel:
    """Raises ModelBadOutput: servers that ignore the schema exist."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ModelBadOutput(f"not our schema: {error.error_count()} mistakes", spent=spent) from error


def _items(observation: Observation, rule: RuleMatch) -> list[dict[str, Any]]:
    items: tuple[Observation | NamedThing, ...] = (observation, *observation.others)
    matches = (rule, *rule.others)
    return [
        {"name": each.name, "rule": match.key, **_facts(each, match)}
        for each, match in zip(items, matches, strict=True)
    ]


def _facts(item: Observation | NamedThing, rule: RuleMatch) -> dict[str, Any]:
    return {
        "category": item.classification.middle_category,
        "minor": item.classification.minor_category,
        "situation_tags": item.situation_tags,
        "insufficiencies": rule.insufficiencies,
        "confidence": round(item.confidence, 2),
    }


def _without_source(rule: RuleMatch) -> dict[str, Any]:
    """The rule as the model needs it: the source's link alone would be a quarter of its tokens."""
    return {name: part for name, part in rule.document.items() if name != "source"}


def _check_names(rulebook: Rulebook, middles: set[str], tags: list[str], spent: PaidCall) -> None:
    """Raises ModelBadOutput for a name that the taxonomy lacks: servers that ignore the schema exist."""
    if unknown := [*(middles - set(rulebook.middles())), *(set(tags) - set(rulebook.tags))]:
        raise ModelBadOutput(f"{len(unknown)} names that the taxonomy lacks", spent=spent)


def _classification(rulebook: Rulebook, item: VisionReply | NamedItem) -> Classification:
    """No schema can say that minors depend on their middle; a minor of another middle is dropped."""
    minors = rulebook.minors_of(item.middle_category)
    minor = item.minor_category if item.minor_category in minors else None
    return rulebook.classification(item.middle_category, minor)


def _vision_schema(rulebook: Rulebook) -> dict[str, Any]:
    fields = _item_fields(rulebook)
    candidate = _object(middle_category=fields["middle_category"], confidence=fields["confidence"])
    return _object(**fields, candidates={"type": "array", "maxItems": MAX_CANDIDATES, "items": candidate})


def _question_schema(rulebook: Rulebook) -> dict[str, Any]:
    item = _object(name={"type": "string"}, **_item_fields(rulebook))
    return _object(is_about_waste={"type": "boolean"}, things={"type": "array", "maxItems": MAX_ITEMS, "items": item})


def _item_fields(rulebook: Rulebook) -> dict[str, dict[str, Any]]:
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


_ANSWER_SCHEMA = _object(
    disposal_steps={"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_STEPS},
    user_answer={"type": "string"},
)
