"""Stage 3, answer: Observation + RuleMatch → Answer, by the answer model that the job asks for."""

from collections.abc import Mapping

import structlog

from pipeline.errors import ModelAccount
from pipeline.knowledge.contradiction import Contradictions
from pipeline.knowledge.insufficiency import missing_texts
from pipeline.knowledge.texts import Texts
from pipeline.models import LOCAL, AnswerModel, OnText, ignore_text, is_local
from pipeline.types import Answer, AnswerForm, JobInput, Observation, RuleMatch, Subject

log = structlog.get_logger()


class AnswerWriter:
    """`writers` has the same names as the vision models, LOCAL among them, so that a job's `model` selects both.

    Three things do not depend on the writer: insufficiencies follow from the tags; text that contradicts the rule is
    replaced by the local writer's text; a note about an unknown thing in the question is appended.
    """

    def __init__(
        self, writers: Mapping[str, AnswerModel], default: str, texts: Texts, contradictions: Contradictions
    ) -> None:
        self._writers = writers
        self._default = default
        self._texts = texts
        self._contradictions = contradictions

    async def write(
        self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText = ignore_text
    ) -> Answer:
        """Raises `model.*` errors, or ModelPaused. For prose, `on_text` has received the `user_answer` by the end."""
        if observation.subject is not Subject.THING:
            return await self._stream_rest(self._without_thing(observation, rule, job), job, on_text)
        streamed = _StreamedText(on_text)
        answer = await self.writer_for(job).write(observation, rule, job, streamed)
        if not is_local(answer.model):
            answer = await self._correct(answer, observation, rule, job)
        if observation.has_unknown:
            answer = self._with_unknown(answer, job)
        answer = await self._stream_rest(answer, job, on_text, streamed=streamed.text)
        missing = missing_texts(observation, rule, job, self._texts)
        return answer.model_copy(update={"insufficiencies": (*answer.insufficiencies, *missing)})

    def writer_for(self, job: JobInput) -> AnswerModel:
        """Raises ModelAccount if this process has no such model."""
        name = job.model or self._default
        if name not in self._writers:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._writers[name]

    async def _stream_rest(self, answer: Answer, job: JobInput, on_text: OnText, *, streamed: str = "") -> Answer:
        """Stream the rest of the final text, or restart the stream if it differs."""
        text = answer.user_answer
        if job.form is AnswerForm.PROSE and text != streamed:
            continues = streamed != "" and text.startswith(streamed)
            await on_text(text.removeprefix(streamed), restart=not continues)
        return answer

    def _with_unknown(self, answer: Answer, job: JobInput) -> Answer:
        """Append the note as a paragraph. The thing is not named: its name would be the user's own text."""
        text = self._texts.message("chat.also_unknown", job.locale)
        return answer.model_copy(update={"user_answer": f"{answer.user_answer}\n{text}"})

    def _without_thing(self, observation: Observation, rule: RuleMatch, job: JobInput) -> Answer:
        """Needs no writer, so `model` is the one that read the question."""
        is_waste = observation.subject is Subject.UNKNOWN
        text = self._texts.message("chat.unknown_thing" if is_waste else "chat.not_waste", job.locale)
        steps = tuple(rule.document["steps"]) if is_waste else ()
        return Answer(disposal_steps=steps, user_answer=text, model=observation.model)

    async def _correct(self, answer: Answer, observation: Observation, rule: RuleMatch, job: JobInput) -> Answer:
        """The answer, or if it contradicts the rule the local text, still under the name of the model that was paid."""
        codes = self._contradictions_in(answer, rule, job)
        if not codes:
            return answer
        log.warning("answer.contradicted", model=answer.model, category=rule.key, codes=codes)
        without_question = job.model_copy(update={"user_input": ""})
        safe = await self._writers[LOCAL].write(observation, rule, without_question, ignore_text)
        unanswered = (self._texts.message("answer.unanswered", job.locale),) if job.user_input else ()
        is_prose = job.form is AnswerForm.PROSE
        return answer.model_copy(
            update={
                "disposal_steps": safe.disposal_steps,
                "user_answer": " ".join((safe.user_answer, *unanswered)) if is_prose else safe.user_answer,
                "insufficiencies": unanswered,
                "contradictions": codes,
            }
        )

    def _contradictions_in(self, answer: Answer, rule: RuleMatch, job: JobInput) -> tuple[str, ...]:
        """For several things, only what contradicts every rule: which thing a sentence is about is not known."""
        texts = (*answer.disposal_steps, answer.user_answer)
        first, *others = (self._contradictions.find(texts, each.category, job.locale) for each in (rule, *rule.others))
        return tuple(code for code in first if all(code in found for found in others))


class _StreamedText:
    """An OnText that forwards to another and keeps the text so far."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self.text = ""

    async def __call__(self, piece: str, *, restart: bool = False) -> None:
        self.text = piece if restart else self.text + piece
        await self._on_text(piece, restart=restart)
