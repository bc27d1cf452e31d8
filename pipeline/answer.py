"""Stage 3: Observation + RuleMatch → Answer, by the writer that goes with the job's model."""

from collections.abc import Mapping

from pipeline.errors import ModelAccount
from pipeline.model import AnswerModel
from pipeline.types import Answer, JobInput, Observation, RuleMatch


class AnswerWriter:
    """`writers` has the same names as the vision models: who looks decides who writes."""

    def __init__(self, writers: Mapping[str, AnswerModel], default: str) -> None:
        self._writers = writers
        self._default = default

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput) -> Answer:
        """Raises `model.*` errors, or ModelPaused."""
        return await self.writer_for(job).write(observation, rule, question=job.user_input, locale=job.locale)

    def writer_for(self, job: JobInput) -> AnswerModel:
        """Raises ModelAccount for a model that this process does not have."""
        name = job.model or self._default
        if name not in self._writers:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._writers[name]
