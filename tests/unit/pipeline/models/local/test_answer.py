"""The local answer: the rule's own steps, and a text from the catalogue."""

import pytest

from pipeline.knowledge.insufficiency import Insufficiencies
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.knowledge.texts import Texts
from pipeline.models import ignore_text
from pipeline.models.local.answer import LocalAnswer
from pipeline.rules import RuleMatcher
from pipeline.settings import RESOURCES
from pipeline.types import Candidate, JobInput, Locale, Observation, Usage


@pytest.fixture(scope="module")
def rulebook() -> Rulebook:
    return Rulebook.load(RESOURCES)


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts.load(RESOURCES)


def photo_job(question: str, locale: Locale) -> JobInput:
    return JobInput(image_key="scan/cup.jpg", user_input=question, locale=locale)


def _observation(
    rulebook: Rulebook, middle: str, confidence: float, candidates: dict[str, float] | None = None
) -> Observation:
    return Observation(
        classification=rulebook.classification(middle, None),
        confidence=confidence,
        candidates=tuple(
            Candidate(middle_category=name, confidence=value) for name, value in (candidates or {}).items()
        ),
        model="local/test",
    )


@pytest.mark.parametrize("locale", Locale)
async def test_the_answer_is_the_rule_documents_own_steps(rulebook: Rulebook, texts: Texts, locale: Locale) -> None:
    observation = _observation(rulebook, "유리병", 0.9)
    rule = RuleMatcher(rulebook, Insufficiencies.load(RESOURCES, rulebook, texts)).match(observation, locale)
    answer = await LocalAnswer(texts, rulebook).write(observation, rule, photo_job("", locale), ignore_text)
    assert answer.disposal_steps == tuple(rule.document["steps"])
    assert answer.insufficiencies == ()
    assert rule.document["summary"] in answer.user_answer
    assert rule.document["steps"][0] in answer.user_answer
    assert answer.model == "local/rules"
    assert answer.usage == Usage()


async def test_the_answer_names_the_category_in_the_jobs_language(rulebook: Rulebook, texts: Texts) -> None:
    observation = _observation(rulebook, "유리병", 0.9)
    for locale, name in ((Locale.KO, "유리병"), (Locale.EN, "Glass bottles")):
        rule = RuleMatcher(rulebook, Insufficiencies.load(RESOURCES, rulebook, texts)).match(observation, locale)
        answer = await LocalAnswer(texts, rulebook).write(observation, rule, photo_job("", locale), ignore_text)
        assert name in answer.user_answer


@pytest.mark.parametrize("locale", Locale)
async def test_what_the_person_wrote_is_said_to_be_unread(rulebook: Rulebook, texts: Texts, locale: Locale) -> None:
    observation = _observation(rulebook, "금속류", 0.9)
    rule = RuleMatcher(rulebook, Insufficiencies.load(RESOURCES, rulebook, texts)).match(observation, locale)
    answer = await LocalAnswer(texts, rulebook).write(observation, rule, photo_job("뚜껑도요?", locale), ignore_text)
    assert answer.insufficiencies == (texts.message("answer.unread", locale),)


async def test_an_unsure_answer_offers_the_likely_candidates_only(rulebook: Rulebook, texts: Texts) -> None:
    observation = _observation(
        rulebook, UNCLASSIFIED, 0.4, candidates={"플라스틱류": 0.4, "유리병": 0.3, "금속류": 0.01}
    )
    rule = RuleMatcher(rulebook, Insufficiencies.load(RESOURCES, rulebook, texts)).match(observation, Locale.EN)
    answer = await LocalAnswer(texts, rulebook).write(observation, rule, photo_job("", Locale.EN), ignore_text)
    assert "Plastics, Glass bottles." in answer.user_answer
    assert "Metals" not in answer.user_answer
    assert answer.disposal_steps == tuple(rule.document["steps"])


@pytest.mark.parametrize("locale", Locale)
async def test_without_candidates_the_answer_says_that_it_does_not_know(
    rulebook: Rulebook, texts: Texts, locale: Locale
) -> None:
    observation = _observation(rulebook, UNCLASSIFIED, 0.0)
    rule = RuleMatcher(rulebook, Insufficiencies.load(RESOURCES, rulebook, texts)).match(observation, locale)
    answer = await LocalAnswer(texts, rulebook).write(observation, rule, photo_job("", locale), ignore_text)
    assert answer.user_answer == texts.message("answer.unknown", locale)
