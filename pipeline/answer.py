"""Stage 3: Observation + RuleMatch → Answer, by the writer that goes with the job's model."""

from collections.abc import Mapping

import structlog

from pipeline.contradiction import Contradictions
from pipeline.errors import ModelAccount
from pipeline.insufficiency import message_key
from pipeline.model import LOCAL, AnswerModel, is_local
from pipeline.texts import Texts
from pipeline.types import Answer, JobInput, Locale, Observation, RuleMatch

log = structlog.get_logger()


class AnswerWriter:
    """`writers` has the same names as the vision models, LOCAL among them: who looks decides who writes.

    Two things are never the writer's to say. What is missing follows from the tags, so that all writers agree. And
    what contradicts the rule is replaced by what the local writer makes of the rule.
    """

    def __init__(
        self, writers: Mapping[str, AnswerModel], default: str, texts: Texts, contradictions: Contradictions
    ) -> None:
        self._writers = writers
        self._default = default
        self._texts = texts
        self._contradictions = contradictions

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput) -> Answer:
        """Raises `model.*` errors, or ModelPaused."""
        answer = await self.writer_for(job).write(observation, rule, question=job.user_input, locale=job.locale)
        if not is_local(answer.model):
            answer = await self._corrected(answer, observation, rule, job)
        missing = self._missing(observation, rule, job.locale)
        return answer.model_copy(update={"insufficiencies": (*answer.insufficiencies, *missing)})

    def writer_for(self, job: JobInput) -> AnswerModel:
        """Raises ModelAccount for a model that this process does not have."""
        name = job.model or self._default
        if name not in self._writers:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._writers[name]

    async def _corrected(self, answer: Answer, observation: Observation, rule: RuleMatch, job: JobInput) -> Answer:
        """The answer, or in its place the rule's own words, signed by the model that was paid for it all the same."""
        texts = (*answer.disposal_steps, answer.user_answer)
        codes = self._contradictions.find(texts, rule.category, job.locale)
        if not codes:
            return answer
        log.warning("answer.contradicted", model=answer.model, category=rule.key, codes=codes)
        safe = await self._writers[LOCAL].write(observation, rule, question="", locale=job.locale)
        unanswered = (self._texts.message("answer.unanswered", job.locale),) if job.user_input else ()
        return answer.model_copy(
            update={
                "disposal_steps": safe.disposal_steps,
                "user_answer": safe.user_answer,
                "insufficiencies": unanswered,
                "contradictions": codes,
            }
        )

    def _missing(self, observation: Observation, rule: RuleMatch, locale: Locale) -> tuple[str, ...]:
        """Of an item whose state nobody saw, nothing is known to be missing: the rule says what to check."""
        if not observation.situation_tags:
            return tuple(rule.document["check"])
        return tuple(self._texts.message(message_key(code), locale) for code in rule.insufficiencies)
