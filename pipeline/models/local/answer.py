"""The local answer: composed from the rule document and the catalogue of texts."""

from pipeline.knowledge.insufficiency import insufficiency_texts, missing_texts
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook, RuleText
from pipeline.knowledge.texts import Texts
from pipeline.models import LOCAL, OnText
from pipeline.types import Answer, AnswerForm, JobInput, Locale, Observation, RuleMatch

MIN_GUESS_CONFIDENCE = 0.05
"""A candidate below this is not offered to the user as a guess."""


class LocalAnswer:
    """Composes the answer from the rule document: no model, no network, no waiting."""

    name = f"{LOCAL}/rules"

    def __init__(self, texts: Texts, rulebook: Rulebook) -> None:
        self._texts = texts
        self._rulebook = rulebook

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer:
        """Cannot read a question about a photo; the answer says so. Never streams: it takes no time."""
        del on_text
        document = RuleText.model_validate(rule.document)
        if not job.has_photo:
            text = self._of_items(observation, rule, job.locale)
            return Answer(disposal_steps=document.steps, user_answer=text, model=self.name)
        unread = (self._texts.message("answer.unread", job.locale),) if job.user_input else ()
        text = self._summary(observation, rule, document, job.locale)
        if job.form is AnswerForm.PROSE:  # The text is all that is shown.
            text = " ".join((text, *unread, *missing_texts(observation, rule, job, self._texts)))
        return Answer(disposal_steps=document.steps, insufficiencies=unread, user_answer=text, model=self.name)

    def _of_items(self, observation: Observation, rule: RuleMatch, locale: Locale) -> str:
        """One paragraph for each item of the question, with its insufficiencies."""
        named = [observation.name or rule.category, *(each.name for each in observation.others)]
        rules = (rule, *rule.others)
        paragraphs = [self._of_item(name, each, locale) for name, each in zip(named, rules, strict=True)]
        head = [self._texts.message("chat.several", locale)] if len(rules) > 1 else []
        return "\n".join((*head, *paragraphs))

    def _of_item(self, name: str, rule: RuleMatch, locale: Locale) -> str:
        document = RuleText.model_validate(rule.document)
        text = self._texts.message(
            "chat.thing",
            locale,
            name=name,
            category=self._display_name(rule.category, locale),
            summary=document.summary,
            first_step=document.steps[0],
        )
        return " ".join((text, *insufficiency_texts(rule.insufficiencies, self._texts, locale)))

    def _summary(self, observation: Observation, rule: RuleMatch, document: RuleText, locale: Locale) -> str:
        if rule.category != UNCLASSIFIED:
            return self._texts.message(
                "answer.local",
                locale,
                category=self._display_name(rule.category, locale),
                summary=document.summary,
                first_step=document.steps[0],
            )
        guesses = [each.middle_category for each in observation.candidates if each.confidence >= MIN_GUESS_CONFIDENCE]
        if not guesses:
            return self._texts.message("answer.unknown", locale)
        names = ", ".join(self._display_name(name, locale) for name in guesses)
        return self._texts.message("answer.unsure", locale, candidates=names)

    def _display_name(self, middle: str, locale: Locale) -> str:
        return middle if locale is Locale.KO else self._rulebook.middle(middle).en
