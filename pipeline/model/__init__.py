"""Ports to the models. The adapters beside this file are imported by `pipeline.build` only."""

from typing import Protocol

from pipeline.types import Answer, Locale, Observation, RuleMatch, SourceImage


class VisionModel(Protocol):
    """Looks at a photo. Raises `model.*` errors; never returns a category outside the taxonomy."""

    name: str

    async def observe(self, image: SourceImage, *, question: str, locale: Locale) -> Observation: ...


class AnswerModel(Protocol):
    """Writes the answer for an observation and its rule. Raises `model.*` errors."""

    name: str

    async def write(self, observation: Observation, rule: RuleMatch, *, question: str, locale: Locale) -> Answer: ...
