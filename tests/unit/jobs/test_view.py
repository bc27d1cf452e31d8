"""A result as it is shown; and the one place that escapes."""

from jobs.view import PipelineResultView
from tests.support.jobs import answer, result


def view(text: str, user_input: str = "") -> PipelineResultView:
    written = answer(text).model_copy(update={"disposal_steps": (text, text), "insufficiencies": (text,)})
    return PipelineResultView.of(result().model_copy(update={"answer": written}), user_input)


def test_every_text_of_a_model_or_user_is_escaped_once() -> None:
    shown = view("<b>&amp;", user_input='"<i>"')
    escaped = "&lt;b&gt;&amp;amp;"
    assert shown.final_answer.user_answer == escaped
    assert set(shown.final_answer.disposal_steps.values()) == {escaped}
    assert shown.final_answer.insufficiencies == (escaped,)
    assert shown.classification_result.meta.user_input == "&quot;&lt;i&gt;&quot;"


def test_steps_are_numbered_from_one_in_order() -> None:
    assert list(view("a").final_answer.disposal_steps) == ["단계1", "단계2"]


def test_the_rule_document_lies_beside_its_key_and_category() -> None:
    rule = result().rule
    assert view("a").disposal_rules == {"key": rule.key, "category": rule.category, **rule.document}
