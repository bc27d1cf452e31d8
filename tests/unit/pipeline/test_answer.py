"""Stage 3: insufficiencies follow from the tags, whichever model writes the answer."""

from typing import Any

import pytest

from pipeline.answer import AnswerWriter
from pipeline.knowledge.contradiction import Contradictions
from pipeline.knowledge.insufficiency import Insufficiencies, message_key
from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.texts import Texts
from pipeline.models import LOCAL, AnswerModel, OnText
from pipeline.models.local.answer import LocalAnswer
from pipeline.rules import RuleMatcher
from pipeline.settings import RESOURCES
from pipeline.types import Answer, JobInput, Locale, Observation, RuleMatch, Usage

HOSTED = "gpt-test"

rulebook = Rulebook.load(RESOURCES)
texts = Texts.load(RESOURCES)
matcher = RuleMatcher(rulebook, Insufficiencies.load(RESOURCES, rulebook, texts))


class Scripted:
    """A hosted model that always writes this."""

    def __init__(self, text: str) -> None:
        self.name = HOSTED
        self.text = text

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer:
        del observation, rule, job, on_text
        steps = ("내용물을 비워 주세요.",)
        return Answer(disposal_steps=steps, user_answer=self.text, model=self.name, usage=Usage(output_tokens=7))


def photo_job(**fields: Any) -> JobInput:
    return JobInput(image_key="scan/cup.jpg", **fields)


def observed(category: str, *tags: str) -> Observation:
    place = rulebook.classification(category, None)
    return Observation(classification=place, situation_tags=tags, confidence=0.9, model=HOSTED)


async def written(observation: Observation, job: JobInput, text: str = "비워서 배출해 주세요.") -> Answer:
    writers: dict[str, AnswerModel] = {LOCAL: LocalAnswer(texts, rulebook), HOSTED: Scripted(text)}
    writer = AnswerWriter(writers, LOCAL, texts, Contradictions.load(RESOURCES, rulebook))
    return await writer.write(observation, matcher.match(observation, job.locale), job)


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("tags", [("라벨_있음", "내용물_남음"), ("깨끗함",), ()])
async def test_local_and_hosted_answers_agree_on_what_is_missing(locale: Locale, tags: tuple[str, ...]) -> None:
    observation = observed("플라스틱류", *tags)
    local, hosted = [
        await written(observation, photo_job(model=model, locale=locale, user_input="")) for model in (LOCAL, HOSTED)
    ]
    assert local.insufficiencies == hosted.insufficiencies


@pytest.mark.parametrize("locale", Locale)
async def test_what_is_missing_is_said_in_the_jobs_language(locale: Locale) -> None:
    answer = await written(observed("유리병", "깨짐"), photo_job(model=HOSTED, locale=locale))
    assert answer.insufficiencies == (texts.message(message_key("broken_glass"), locale),)


async def test_an_item_whose_state_was_seen_to_be_fine_lacks_nothing() -> None:
    answer = await written(observed("유리병", "내용물_비움", "온전함"), photo_job(model=HOSTED))
    assert answer.insufficiencies == ()


async def test_a_photo_without_situation_tags_gets_the_checks_of_its_rule() -> None:
    observation = observed("유리병")
    answer = await written(observation, photo_job(model=HOSTED))
    assert answer.insufficiencies == tuple(matcher.match(observation, Locale.KO).document["check"])


async def test_the_note_about_an_unread_question_comes_first() -> None:
    answer = await written(observed("유리병", "깨짐"), photo_job(model=LOCAL, user_input="뚜껑은요?"))
    unread = texts.message("answer.unread", Locale.KO)
    assert answer.insufficiencies == (unread, texts.message(message_key("broken_glass"), Locale.KO))


async def test_a_hosted_answer_that_contradicts_its_rule_is_replaced_by_the_rule() -> None:
    observation = observed("전지", "온전함")
    rule = matcher.match(observation, Locale.KO)
    answer = await written(observation, photo_job(model=HOSTED), "건전지는 종량제봉투에 버려 주세요.")
    assert answer.contradictions == ("waste_bag",)
    assert answer.disposal_steps == tuple(rule.document["steps"])
    assert rule.document["summary"] in answer.user_answer
    assert "종량제봉투에 버려" not in answer.user_answer


async def test_a_replaced_answer_is_still_the_hosted_models_and_paid_for() -> None:
    answer = await written(observed("전지"), photo_job(model=HOSTED), "종량제봉투에 버려 주세요.")
    assert answer.model == HOSTED
    assert answer.usage == Usage(output_tokens=7)


async def test_a_replaced_answer_says_that_the_question_stays_open() -> None:
    job = photo_job(model=HOSTED, user_input="그냥 버려도 되나요?")
    answer = await written(observed("전지", "온전함"), job, "네, 종량제봉투에 버려 주세요.")
    assert answer.insufficiencies == (texts.message("answer.unanswered", Locale.KO),)


async def test_an_answer_that_agrees_with_its_rule_stays_as_it_was_written() -> None:
    text = "전지 수거함에 넣고 종량제봉투에는 넣지 말아 주세요."
    answer = await written(observed("전지"), photo_job(model=HOSTED), text)
    assert (answer.user_answer, answer.contradictions) == (text, ())
