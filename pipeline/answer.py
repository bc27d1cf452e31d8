"""Stage 3: Observation + RuleMatch → Answer, by the writer that goes with the job's model."""

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
    """`writers` has the same names as the vision models, LOCAL among them: who looks decides who writes.

    Three things are never the writer's to say. What is missing follows from the tags, so that all writers agree. What
    contradicts the rule is replaced by what the local writer makes of the rule. And that a question also names a thing
    which nobody knew is added at the end.
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
        """Raises `model.*` errors, or ModelPaused. Of prose, what has been told by the end is the `user_answer`."""
        if observation.subject is not Subject.THING:
            return await self._told(self._of_no_thing(observation, rule, job), job, on_text)
        hearing = _Hearing(on_text)
        answer = await self.writer_for(job).write(observation, rule, job, hearing)
        if not is_local(answer.model):
            answer = await self._corrected(answer, observation, rule, job)
        if observation.has_unknown:
            answer = self._with_unknown(answer, job)
        answer = await self._told(answer, job, on_text, heard=hearing.text)
        missing = missing_texts(observation, rule, job, self._texts)
        return answer.model_copy(update={"insufficiencies": (*answer.insufficiencies, *missing)})

    def writer_for(self, job: JobInput) -> AnswerModel:
        """Raises ModelAccount for a model that this process does not have."""
        name = job.model or self._default
        if name not in self._writers:
            raise ModelAccount(f"the model {name} is not configured here")
        return self._writers[name]

    async def _told(self, answer: Answer, job: JobInput, on_text: OnText, *, heard: str = "") -> Answer:
        """What is new after what was heard, or all of it anew."""
        text = answer.user_answer
        if job.form is AnswerForm.PROSE and text != heard:
            is_longer = heard != "" and text.startswith(heard)
            await on_text(text.removeprefix(heard), restart=not is_longer)
        return answer

    def _with_unknown(self, answer: Answer, job: JobInput) -> Answer:
        """In a paragraph of its own. The thing itself is not named: its name would be the user's own text."""
        text = self._texts.message("chat.also_unknown", job.locale)
        return answer.model_copy(update={"user_answer": f"{answer.user_answer}\n{text}"})

    def _of_no_thing(self, observation: Observation, rule: RuleMatch, job: JobInput) -> Answer:
        """Needs no writer, so it is signed by who read the question."""
        is_waste = observation.subject is Subject.UNKNOWN
        text = self._texts.message("chat.unknown_thing" if is_waste else "chat.not_waste", job.locale)
        steps = tuple(rule.document["steps"]) if is_waste else ()
        return Answer(disposal_steps=steps, user_answer=text, model=observation.model)

    async def _corrected(self, answer: Answer, observation: Observation, rule: RuleMatch, job: JobInput) -> Answer:
        """The answer, or in its place the rule's own words, signed by the model that was paid for it all the same."""
        codes = self._contradictions_in(answer, rule, job)
        if not codes:
            return answer
        log.warning("answer.contradicted", model=answer.model, category=rule.key, codes=codes)
        unasked = job.model_copy(update={"user_input": ""})
        safe = await self._writers[LOCAL].write(observation, rule, unasked, ignore_text)
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
        """Of a text about several things only what is wrong for each of them: nobody can tell which one is meant."""
        texts = (*answer.disposal_steps, answer.user_answer)
        first, *others = (self._contradictions.find(texts, each.category, job.locale) for each in (rule, *rule.others))
        return tuple(code for code in first if all(code in found for found in others))


class _Hearing:
    """Passes on what is told, and remembers it."""

    def __init__(self, on_text: OnText) -> None:
        self._tell = on_text
        self.text = ""

    async def __call__(self, piece: str, *, restart: bool = False) -> None:
        self.text = piece if restart else self.text + piece
        await self._tell(piece, restart=restart)
