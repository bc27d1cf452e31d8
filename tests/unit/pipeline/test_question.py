"""A question without a photo through the stages: read, matched with its rules, answered."""

from typing import Any

import orjson
import pytest

from pipeline.answer import AnswerWriter
from pipeline.errors import ModelAccount
from pipeline.knowledge.contradiction import Contradictions
from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.insufficiency import Insufficiencies, message_key
from pipeline.knowledge.lexicon import Lexicon
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.knowledge.texts import Texts
from pipeline.models import LOCAL, OnText, is_local
from pipeline.models.hosted import HostedText
from pipeline.models.local.answer import LocalAnswer
from pipeline.models.local.question import LocalText
from pipeline.models.provider import Content, Prompt
from pipeline.question import QuestionStage
from pipeline.questions.reader import LexiconReader
from pipeline.rules import RuleMatcher
from pipeline.settings import RESOURCES
from pipeline.types import (
    Answer,
    AnswerForm,
    JobInput,
    KnownThings,
    Locale,
    NamedThing,
    Observation,
    ParsedQuestion,
    RuleMatch,
    Subject,
    UnknownThing,
    Usage,
)
from tests.support.openai_server import READ

HOSTED = "gpt-test"

rulebook = Rulebook.load(RESOURCES)
texts = Texts.load(RESOURCES)
rules = RuleMatcher(rulebook, Insufficiencies.load(RESOURCES, rulebook, texts))
lexicon_reader = LexiconReader(Lexicon.load(RESOURCES, rulebook), Grammar.load(RESOURCES, rulebook), rulebook)
reader = QuestionStage({LOCAL: LocalText(lexicon_reader)}, LOCAL, rulebook)


class StreamedText:
    """An `OnText` that keeps the text so far."""

    def __init__(self) -> None:
        self.text = ""
        self.restarts = 0

    async def __call__(self, piece: str, *, restart: bool = False) -> None:
        self.text = piece if restart else self.text + piece
        self.restarts += restart


class Scripted:
    """A hosted model that streams and returns these pieces."""

    name = HOSTED

    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput, on_text: OnText) -> Answer:
        del observation, job
        for piece in self._pieces:
            await on_text(piece)
        steps = tuple(rule.document["steps"])
        return Answer(disposal_steps=steps, user_answer="".join(self._pieces), model=self.name)


class Replying:
    """A provider whose model names things of these categories."""

    def __init__(self, *categories: str) -> None:
        things = [READ["things"][0] | {"name": f"물건 {name}", "middle_category": name} for name in categories]
        self._reply = orjson.dumps(READ | {"things": things}).decode()

    def prepare(self, prompt: Prompt) -> "Replying":
        del prompt
        return self

    async def ask(self, *content: Content) -> tuple[str, Usage]:
        del content
        return self._reply, Usage()

    async def stream(self, *content: Content, **_: object) -> tuple[str, Usage]:
        raise NotImplementedError(content)

    async def close(self) -> None: ...


async def read_by_a_model(*categories: str) -> ParsedQuestion:
    reading, _ = await HostedText(Replying(*categories), HOSTED, texts, rulebook).read("?", Locale.KO)
    return reading


def chat(message: str, **fields: Any) -> JobInput:
    return JobInput.model_validate({"user_input": message, "form": AnswerForm.PROSE, **fields})


async def answered(job: JobInput, *pieces: str) -> tuple[Observation, Answer, str]:
    observation, answer, streamed = await answer_streamed(job, *pieces)
    return observation, answer, streamed.text


async def answer_streamed(job: JobInput, *pieces: str) -> tuple[Observation, Answer, StreamedText]:
    streamed = StreamedText()
    writer = AnswerWriter(
        {LOCAL: LocalAnswer(texts, rulebook), HOSTED: Scripted(*pieces)},
        HOSTED if pieces else LOCAL,
        texts,
        Contradictions.load(RESOURCES, rulebook),
    )
    observation = await reader.observe(job)
    answer = await writer.write(observation, rules.match(observation, job.locale), job, streamed)
    return observation, answer, streamed


async def test_each_thing_of_a_question_has_its_rule() -> None:
    observation = await reader.observe(chat("깨진 유리컵이랑 라벨 붙은 소주병"))
    rule = rules.match(observation, Locale.KO)
    assert (observation.subject, observation.name) == (Subject.THING, "유리컵")
    assert [rule.category, *(each.category for each in rule.others)] == ["불연성종량제폐기물", "유리병"]
    assert rule.others[0].insufficiencies == ("label_on",)


@pytest.mark.parametrize("locale", Locale)
async def test_the_local_answer_says_of_each_thing_where_it_goes_and_what_it_lacks(locale: Locale) -> None:
    _, answer, streamed = await answered(chat("깨진 유리컵이랑 라벨 붙은 소주병", locale=locale))
    names = ["불연성종량제폐기물", "유리병"]
    shown = names if locale is Locale.KO else [rulebook.middle(name).en for name in names]
    assert all(name in answer.user_answer for name in shown)
    assert texts.message(message_key("label_on"), locale) in answer.user_answer
    assert streamed == answer.user_answer
    assert is_local(answer.model)


@pytest.mark.parametrize(
    ("message", "subject", "key"),
    [
        ("오늘 날씨 어때?", Subject.NOT_WASTE, "chat.not_waste"),
        ("짐볼링기 어떻게 버려요?", Subject.UNKNOWN, "chat.unknown_thing"),
    ],
)
async def test_a_question_without_a_known_thing_needs_no_writer(message: str, subject: Subject, key: str) -> None:
    observation, answer, streamed = await answered(chat(message), "never asked")
    assert (observation.subject, observation.classification.middle_category) == (subject, UNCLASSIFIED)
    assert answer.user_answer == streamed == texts.message(key, Locale.KO)
    assert answer.model == observation.model
    assert answer.insufficiencies == ()


async def test_text_that_a_hosted_model_streamed_is_not_streamed_again() -> None:
    _, answer, streamed = await answered(chat("유리병"), "비우고 ", "헹궈 주세요.")
    assert (answer.user_answer, streamed) == ("비우고 헹궈 주세요.", "비우고 헹궈 주세요.")


async def test_an_answer_that_contradicts_the_rule_restarts_the_stream_and_says_what_is_unanswered() -> None:
    _, answer, streamed = await answered(chat("보조배터리 버려도 되나요?"), "종량제봉투에 ", "버려 주세요.")
    assert answer.contradictions
    assert streamed == answer.user_answer
    assert texts.message("answer.unanswered", Locale.KO) in answer.user_answer
    assert answer.model == HOSTED


async def test_a_text_that_is_right_for_one_of_several_things_is_no_contradiction() -> None:
    _, answer, _ = await answered(chat("보조배터리랑 기름 묻은 피자 박스"), "박스는 종량제봉투에 버려 주세요.")
    assert answer.contradictions == ()


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("pieces", [(), ("비우고 ", "헹궈 주세요.")])
async def test_an_answer_says_that_it_leaves_out_an_unknown_thing(locale: Locale, pieces: tuple[str, ...]) -> None:
    job = chat("소주병이랑 짐볼링기는 어떻게 버려요?", locale=locale)
    observation, answer, streamed = await answer_streamed(job, *pieces)
    assert (observation.subject, observation.has_unknown) == (Subject.THING, True)
    *known, last = answer.user_answer.split("\n")
    assert last == texts.message("chat.also_unknown", locale)
    assert "".join(known).startswith("".join(pieces))
    assert known
    assert "짐볼링기" not in answer.user_answer
    assert streamed.text == answer.user_answer
    assert streamed.restarts == (0 if pieces else 1)  # Text streamed by the model is kept.


async def test_a_replaced_answer_still_mentions_the_unknown_thing() -> None:
    job = chat("보조배터리랑 짐볼링기 버려도 되나요?")
    _, answer, streamed = await answer_streamed(job, "종량제봉투에 ", "버려 주세요.")
    assert answer.contradictions
    assert answer.user_answer.endswith(texts.message("chat.also_unknown", Locale.KO))
    assert (streamed.text, streamed.restarts) == (answer.user_answer, 1)


async def test_an_answer_about_known_things_mentions_no_unknown_one() -> None:
    _, answer, streamed = await answered(chat("소주병이랑 신문지"))
    assert texts.message("chat.also_unknown", Locale.KO) not in answer.user_answer
    assert streamed == answer.user_answer


async def test_a_hosted_model_reports_known_things_and_that_there_is_an_unknown_one() -> None:
    reading = await read_by_a_model("유리병", UNCLASSIFIED, "종이")
    assert isinstance(reading, KnownThings)
    assert [each.classification.middle_category for each in reading.things] == ["유리병", "종이"]
    assert reading.has_unknown
    known = await read_by_a_model("유리병", "종이")
    assert isinstance(known, KnownThings)
    assert not known.has_unknown


@pytest.mark.parametrize("categories", [(), (UNCLASSIFIED,), (UNCLASSIFIED, UNCLASSIFIED)])
async def test_a_hosted_model_that_knows_no_thing_of_a_question_reports_an_unknown_thing(
    categories: tuple[str, ...],
) -> None:
    assert await read_by_a_model(*categories) == UnknownThing()


def test_an_observation_of_an_earlier_version_has_nothing_unknown() -> None:
    place = rulebook.classification("유리병", None)
    recorded = Observation(classification=place, confidence=0.9, model="local/test").model_dump(exclude={"has_unknown"})
    assert not Observation.model_validate(recorded).has_unknown


async def test_a_photo_of_unknown_state_has_the_rules_checks_in_a_local_answer() -> None:
    """Prose has no list of checks beside it."""
    place = rulebook.classification("유리병", None)
    observation = Observation(classification=place, confidence=0.9, model="local/test")
    rule = rules.match(observation, Locale.KO)
    job = chat("뚜껑은요?", image_key="chat/cup.jpg")
    streamed = StreamedText()
    writer = AnswerWriter({LOCAL: LocalAnswer(texts, rulebook)}, LOCAL, texts, Contradictions.load(RESOURCES, rulebook))
    answer = await writer.write(observation, rule, job, streamed)
    assert all(check in streamed.text for check in rule.document["check"])
    assert texts.message("answer.unread", Locale.KO) in streamed.text
    assert answer.user_answer == streamed.text


async def test_a_model_that_is_not_configured_is_an_account_error() -> None:
    with pytest.raises(ModelAccount):
        await reader.observe(chat("유리병", model="gpt-none"))


def test_an_observation_with_a_category_missing_from_the_taxonomy_is_not_known() -> None:
    place = rulebook.classification("유리병", None)
    known = Observation(classification=place, confidence=0.9, model="local/test")
    gone = NamedThing(
        name="핵연료", classification=place.model_copy(update={"middle_category": "핵폐기물"}), confidence=1.0
    )
    assert rules.knows(known)
    assert not rules.knows(known.model_copy(update={"others": (gone,)}))
