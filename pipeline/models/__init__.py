"""Ports of the stages to their models, and of hosted models to their gate. `pipeline.build` alone imports the adapters
beside this file.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from pipeline.errors import PipelineError
from pipeline.types import Answer, JobInput, Locale, Observation, ParsedQuestion, RuleMatch, SourceImage, Usage

LOCAL = "local"
"""The name by which a job asks for the local model, of whatever version."""

MAX_CANDIDATES = 3
"""Runners-up in an observation, the first choice among them."""


def is_local(name: str) -> bool:
    """Whether an observation or answer with this model's name was made on this machine."""
    return name.startswith(f"{LOCAL}/")


class VisionModel(Protocol):
    """Classifies a photo. Raises `model.*` errors, or ModelPaused; never returns a category outside the taxonomy."""

    name: str

    async def observe(self, image: SourceImage, *, question: str, locale: Locale) -> Observation: ...


class TextModel(Protocol):
    """Reads a question, and returns what it cost as well.

    Raises `model.*` errors, or ModelPaused; never returns a category outside the taxonomy.
    """

    name: str

    async def read(self, question: str, locale: Locale) -> tuple[ParsedQuestion, Usage]: ...


class OnText(Protocol):
    """Called with each piece of an answer's text while it is written.

    Nothing depends on it: the whole text is in the Answer in any case.
    """

    async def __call__(self, piece: str, *, restart: bool = False) -> None:
        """`restart`: discard earlier pieces; the text starts over with this one."""
        ...


async def ignore_text(piece: str, *, restart: bool = False) -> None:
    """No-op `OnText` for callers that only want the final text."""
    del piece, restart


class AnswerModel(Protocol):
    """Writes the answer for an observation and its rule. Raises `model.*` errors, or ModelPaused.

    Its `insufficiencies` name what it could not do itself; what the item lacks is added by the caller. `on_text` is
    called for prose that takes it time, and never for steps.
    """

    name: str

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer: ...


class ModelPaused(Exception):
    """No call to this model now. Not an error, so not in the catalogue: the job should be retried later.

    `cause` is the entry that paused the model; a job that cannot wait fails with it. Retry in `seconds`, plus a random
    part of `spread` seconds, because many jobs may have been sent away at once.
    """

    def __init__(self, model: str, cause: type[PipelineError], *, seconds: float, spread: float = 0.0) -> None:
        super().__init__(f"{model}: {cause.spec.code}, {seconds:.1f} s")
        self.model = model
        self.cause = cause
        self.seconds = seconds
        self.spread = spread


class Gate(Protocol):
    """Admits or rejects calls to hosted models, by what all processes have met there lately.

    Both methods also raise ModelBudgetExhausted.
    """

    def check(self, model: str) -> None:
        """Raises ModelPaused when `call` would. Does no I/O, and may admit a call that `call` then rejects."""
        ...

    def call(self, model: str) -> AbstractAsyncContextManager[None]:
        """Around one call. Raises ModelPaused instead of admitting it, or in place of its ModelRateLimited."""
        ...


class OpenGate:
    """For a process that shares nothing with others: admits every call."""

    def check(self, model: str) -> None:
        """Never raises."""

    def call(self, model: str) -> AbstractAsyncContextManager[None]:
        del model
        return nullcontext()
