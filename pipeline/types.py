"""Domain types: the frozen pydantic models that stages, jobs and API exchange. Imports nothing of ours."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of immutable data. Rejects undeclared fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VersionTolerant(BaseModel):
    """Base of immutable data that processes of different versions exchange. Ignores undeclared fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Locale(StrEnum):
    KO = "ko"
    EN = "en"


class Stage(StrEnum):
    """The stages that a client sees, in order. The values are the SSE event names of the API."""

    QUEUED = "queued"
    FETCH = "fetch"
    VISION = "vision"
    RULE = "rule"
    ANSWER = "answer"
    REWARD = "reward"
    DONE = "done"


class StageStatus(StrEnum):
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class AnswerForm(StrEnum):
    """STEPS: steps with a summary. PROSE: running text that is streamed while it is written (chat)."""

    STEPS = "steps"
    PROSE = "prose"


class JobInput(VersionTolerant):
    """The request of one job. `image_url` may carry credentials in its query: never log the whole URL.

    `image_key` names an upload, and then there is no URL. With neither, the job is the question in `user_input`.
    `fresh` skips the result cache. `model` overrides the configured model.
    """

    image_url: str = ""
    image_key: str | None = None
    user_input: str = ""
    model: str | None = None
    locale: Locale = Locale.KO
    fresh: bool = False
    form: AnswerForm = AnswerForm.STEPS
    temperature: float | None = None

    @property
    def has_photo(self) -> bool:
        return bool(self.image_url or self.image_key)


class SourceImage(Strict):
    """A checked image: upright, of bounded size, without metadata. `data` is the encoded file."""

    media_type: str
    data: bytes = Field(repr=False)
    width: int
    height: int
    sha256: str


class Usage(VersionTolerant):
    """Tokens of model calls and their cost. `input_tokens` includes `cached_tokens`, as providers count it."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=self.cost_usd + other.cost_usd,
        )


class PaidCall(VersionTolerant):
    """A call to a hosted model that got a reply, and so is charged, even if the reply is unusable."""

    model: str
    usage: Usage


class Classification(VersionTolerant):
    """A category of the taxonomy, by its Korean names: existing clients key on these strings."""

    major_category: str
    middle_category: str
    minor_category: str | None = None


class Candidate(VersionTolerant):
    """An alternative category, shown when the model abstains."""

    middle_category: str
    confidence: float = Field(ge=0, le=1)


class NamedThing(VersionTolerant):
    """A thing that a question names. `name` is from the lexicon or the model, in the job's locale."""

    name: str
    classification: Classification
    situation_tags: tuple[str, ...] = ()
    confidence: float


class KnownThings(VersionTolerant):
    """The known things, in the order of the question. `has_unknown`: the question also names an unknown thing."""

    kind: Literal["things"] = "things"
    things: tuple[NamedThing, ...] = Field(min_length=1)
    has_unknown: bool = False


class UnknownThing(VersionTolerant):
    """The question seems to be about waste, and names no known thing."""

    kind: Literal["unknown"] = "unknown"


class NotWaste(VersionTolerant):
    """The question is not about waste."""

    kind: Literal["not_waste"] = "not_waste"


ParsedQuestion = KnownThings | UnknownThing | NotWaste
"""The result of reading a question; `kind` tells the three apart."""


class Subject(StrEnum):
    """The kind of an observation. UNKNOWN and NOT_WASTE occur only for questions without a photo."""

    THING = "thing"
    UNKNOWN = "unknown"
    NOT_WASTE = "not_waste"


class Observation(VersionTolerant):
    """Result of stage 1: the thing in the photo or the question. `confidence` is a calibrated probability in [0, 1].

    For a question, `name` is the first thing's, `others` are the further things, and `has_unknown` means that it also
    names an unknown one. `pipeline_version` is the version that made this observation: a retried job may complete under
    another one.
    """

    classification: Classification
    situation_tags: tuple[str, ...] = ()
    confidence: float
    candidates: tuple[Candidate, ...] = ()
    subject: Subject = Subject.THING
    name: str | None = None
    others: tuple[NamedThing, ...] = ()
    has_unknown: bool = False
    model: str
    usage: Usage = Usage()
    pipeline_version: str | None = None


class RuleMatch(VersionTolerant):
    """Result of stage 2: the rule for an observation. `document` is the rule as JSON, in the job's locale.

    `insufficiencies` are the codes that follow from the situation tags. `others` are the matches of the observation's
    `others`, in the same order.
    """

    key: str
    category: str
    document: dict[str, Any]
    insufficiencies: tuple[str, ...] = ()
    others: "tuple[RuleMatch, ...]" = ()


class Answer(VersionTolerant):
    """Result of stage 3: how to dispose of it, in the job's locale. Plain text: whoever renders it must escape it.

    `contradictions` are the codes because of which the model's text was replaced by the rule's.
    """

    disposal_steps: tuple[str, ...]
    insufficiencies: tuple[str, ...] = ()
    user_answer: str
    contradictions: tuple[str, ...] = ()
    model: str
    usage: Usage = Usage()


class Checkpoints(VersionTolerant):
    """Results of stages completed in an earlier attempt. Such a stage is not run, or paid for, again."""

    observation: Observation | None = None
    answer: Answer | None = None


class StageEvent(Strict):
    """Progress of a run, passed to `emit`. `checkpoint` is the stage's result, from which a retry resumes."""

    stage: Stage
    status: StageStatus
    seconds: float | None = None
    checkpoint: Observation | Answer | None = None


class PipelineResult(VersionTolerant):
    """`pipeline_version` is the version that matched the rule and wrote the answer.

    `degraded`: the local model stood in for a hosted one. `cached`: the result is an earlier job's.
    """

    observation: Observation
    rule: RuleMatch
    answer: Answer
    degraded: bool = False
    cached: bool = False
    pipeline_version: str | None = None


class Refusal(VersionTolerant):
    """A rejected edit of the resources: its version, and its mistakes, one a line."""

    version: str
    detail: str
