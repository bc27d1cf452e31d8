"""Frozen models that travel between the stages of the pipeline. Imports nothing of ours."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Data at rest: immutable, and a field nobody declared is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VersionTolerant(BaseModel):
    """What one process writes and another reads, which may be of another version: new fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Locale(StrEnum):
    KO = "ko"
    EN = "en"


class Stage(StrEnum):
    """The steps a client sees, in order. The names are the SSE event names of the contract."""

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
    """How an answer is written: as steps with a summary, or as running text that is shown while it is written."""

    STEPS = "steps"
    PROSE = "prose"


class JobInput(VersionTolerant):
    """What one job was asked. `image_url` may carry credentials in its query: never log it whole.

    `image_key` names an upload, and then there is no URL; with neither, the question in `user_input` is all there is.
    `fresh` asks not to reuse an earlier result.
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
    """An image we have checked: upright, bounded, free of metadata. `data` is the encoded file."""

    media_type: str
    data: bytes = Field(repr=False)
    width: int
    height: int
    sha256: str


class Usage(VersionTolerant):
    """Tokens and their price. `input_tokens` includes `cached_tokens`, as providers count it."""

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
    """A call of a hosted model that was answered, and so was paid for, whatever the answer was worth."""

    model: str
    usage: Usage


class Classification(VersionTolerant):
    """A place in the taxonomy, by its Korean names: existing clients key on these strings."""

    major_category: str
    middle_category: str
    minor_category: str | None = None


class Candidate(VersionTolerant):
    """A runner-up, shown when the model abstains."""

    middle_category: str
    confidence: float = Field(ge=0, le=1)


class NamedThing(VersionTolerant):
    """A thing that a question names, by a name of ours in the question's language, and what is said about it."""

    name: str
    classification: Classification
    situation_tags: tuple[str, ...] = ()
    confidence: float


class ThingsNamed(VersionTolerant):
    """One or more, in the order of the question. `has_unknown`: it names something else that we do not know."""

    kind: Literal["things"] = "things"
    things: tuple[NamedThing, ...] = Field(min_length=1)
    has_unknown: bool = False


class UnknownThing(VersionTolerant):
    """About waste, as far as can be told, but of no thing that we know."""

    kind: Literal["unknown"] = "unknown"


class NotWaste(VersionTolerant):
    kind: Literal["not_waste"] = "not_waste"


Reading = ThingsNamed | UnknownThing | NotWaste
"""What a question asks about."""


class Subject(StrEnum):
    """What a job is about. The latter two come of questions in words only, and need no rule of their own."""

    THING = "thing"
    UNKNOWN = "unknown"
    NOT_WASTE = "not_waste"


class Observation(VersionTolerant):
    """Stage 1: what is in the picture, or in the question. `confidence` is a calibrated probability in [0, 1].

    A question names its things: `name` is that of the first, `others` are the rest, and `has_unknown` says that there
    was something more that nobody knew. `pipeline_version` is of the pipeline that looked: a job that is tried again
    may end under another one.
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
    """Stage 2: the rule for an observation. `document` is the rule as JSON, in the job's locale.

    `insufficiencies` are the codes of what the situation tags show to be missing. `others` are the matches of the
    observation's other things, in their order.
    """

    key: str
    category: str
    document: dict[str, Any]
    insufficiencies: tuple[str, ...] = ()
    others: "tuple[RuleMatch, ...]" = ()


class Answer(VersionTolerant):
    """Stage 3: what to do, in the job's locale. Plain text: escaping is the edge's business.

    `contradictions` are the codes for which a model's own words were replaced by the rule's.
    """

    disposal_steps: tuple[str, ...]
    insufficiencies: tuple[str, ...] = ()
    user_answer: str
    contradictions: tuple[str, ...] = ()
    model: str
    usage: Usage = Usage()


class Checkpoints(VersionTolerant):
    """The finished stages of an earlier attempt. A stage found here is not run, or paid for, again."""

    observation: Observation | None = None
    answer: Answer | None = None


class StageEvent(Strict):
    """One step of a run, as told to `emit`. `checkpoint` is what a later attempt resumes from."""

    stage: Stage
    status: StageStatus
    seconds: float | None = None
    checkpoint: Observation | Answer | None = None


class PipelineResult(VersionTolerant):
    """`pipeline_version` is of the pipeline that matched the rule and had the answer written."""

    observation: Observation
    rule: RuleMatch
    answer: Answer
    degraded: bool = False
    cached: bool = False
    pipeline_version: str | None = None


class Refusal(VersionTolerant):
    """An edit of the resources that is not used: its version and what is wrong with it, file by file."""

    version: str
    detail: str
