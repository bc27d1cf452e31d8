"""Ports to the models, and the gate before the hosted ones. The adapters beside this file are imported by
`pipeline.build` only.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from pipeline.errors import PipelineError
from pipeline.types import Answer, JobInput, Locale, Observation, ParsedQuestion, RuleMatch, SourceImage, Usage

LOCAL = "local"
"""The name by which a job asks for the local model, whatever its version is called."""


def is_local(name: str) -> bool:
    """Whether a model that signed an observation or an answer is one of this machine's own."""
    return name.startswith(f"{LOCAL}/")


class VisionModel(Protocol):
    """Looks at a photo. Raises `model.*` errors, or ModelPaused; never returns a category outside the taxonomy."""

    name: str

    async def observe(self, image: SourceImage, *, question: str, locale: Locale) -> Observation: ...


class TextModel(Protocol):
    """Reads a question, and says what that cost.

    Raises `model.*` errors, or ModelPaused; never returns a category outside the taxonomy.
    """

    name: str

    async def read(self, question: str, locale: Locale) -> tuple[ParsedQuestion, Usage]: ...


class OnText(Protocol):
    """Is told of a text while it is written. Nothing depends on it: the whole text comes at the end in any case."""

    async def __call__(self, piece: str, *, restart: bool = False) -> None:
        """`anew`: what was told before is not the text any more; it begins with this piece."""
        ...


async def ignore_text(piece: str, *, restart: bool = False) -> None:
    """For whoever waits for the end."""
    del piece, restart


class AnswerModel(Protocol):
    """Writes the answer for an observation and its rule. Raises `model.*` errors, or ModelPaused.

    Its `insufficiencies` are what it could not do itself; what the item lacks is added by the caller. It tells of
    prose that takes it time; steps are told by nobody.
    """

    name: str

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer: ...


class ModelPaused(Exception):
    """No call to this model now. Not an entry of the catalogue: nothing has failed that coming back would not mend.

    `cause` is the entry that paused it, and what a job fails with that cannot wait. Worth coming back in `seconds`,
    at some moment of the `spread` seconds after that, because many may have been told so.
    """

    def __init__(self, model: str, cause: type[PipelineError], *, seconds: float, spread: float = 0.0) -> None:
        super().__init__(f"{model}: {cause.spec.code}, {seconds:.1f} s")
        self.model = model
        self.cause = cause
        self.seconds = seconds
        self.spread = spread


class Gate(Protocol):
    """Stands before the hosted models and knows what others have met there.

    Both methods also raise ModelBudgetExhausted.
    """

    def look(self, model: str) -> None:
        """Raises ModelPaused when `call` would. Costs nothing, and may let through what `call` then refuses."""
        ...

    def call(self, model: str) -> AbstractAsyncContextManager[None]:
        """Around one call. Raises ModelPaused instead of letting it through, or in place of its ModelRateLimited."""
        ...


class OpenGate:
    """For a process that shares nothing with others: every call passes."""

    def look(self, model: str) -> None:
        """Never raises."""

    def call(self, model: str) -> AbstractAsyncContextManager[None]:
        del model
        return nullcontext()
