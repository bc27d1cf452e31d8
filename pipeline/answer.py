"""Stage 3: Observation + RuleMatch → Answer, by the writer that goes with the job's model."""

from collections.abc import Mapping

from pipeline.errors import ModelAccount
from pipeline.insufficiency import message_key
from pipeline.model import AnswerModel
from pipeline.texts import Texts
from pipeline.types import Answer, JobInput, Locale, Observation, RuleMatch


class AnswerWriter:
    """`writers` has the same names as the vision models: who looks decides who writes.

    What is missing is never the writer's to say: it follows from the tags, so that all writers agree.
    """

    def __init__(self, writers: Mapping[str, AnswerModel], default: str, texts: Texts) -> None:
        self._writers = writers
        self._default = default
        self._texts = texts

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput) -> Answer:
        """Raises `model.*` errors, or ModelPaused."""
        answer = await self.writer_for(job).write(observation, rule, question=job.user_input, locale=job.locale)
        missing = self._missing(observation, rule, job.locale)
        return answer.model_copy(update={"insufficiencies": (*answer.insufficiencies, *missing)})

    def writer_for(self, job: JobInput) -> AnswerModel:
        """Raises ModelAccount for a model that this process does not have."""
        name = job.model or self._default
        if name not in self._writers:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._writers[name]

    def _missing(self, observation: Observation, rule: RuleMatch, locale: Locale) -> tuple[str, ...]:
        """Of an item whose state nobody saw, nothing is known to be missing: the rule says what to check."""
        if not observation.situation_tags:
            return tuple(rule.document["check"])
        return tuple(self._texts.message(message_key(code), locale) for code in rule.insufficiencies)
