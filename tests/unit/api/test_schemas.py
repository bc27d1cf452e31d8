"""The contract's shapes, made from results; and the one place that escapes."""

import pytest
from pydantic import ValidationError

from api.schemas import PipelineResultView, ScanRequest, SubmittedView
from pipeline.types import Locale
from tests.support.jobs import answer, result
from workers.jobs.model import JobStatus


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


def test_a_submitted_jobs_id_is_the_second_last_segment_of_its_result_url() -> None:
    taken = SubmittedView.of("the-id", status=JobStatus.QUEUED, queue_position=1, pipeline_version="v")
    assert taken.result_url.split("/")[-2] == "the-id"


def test_a_request_with_only_a_url_means_korean_and_no_question() -> None:
    asked = ScanRequest.model_validate({"image_url": "https://photos.example/a.jpg"})
    assert (asked.locale, asked.user_input, asked.model) == (Locale.KO, None, None)


@pytest.mark.parametrize("size", [2000, 1])
def test_a_question_up_to_the_limit_is_taken(size: int) -> None:
    request = ScanRequest.model_validate({"image_url": "https://photos.example/", "user_input": "가" * size})
    assert len(request.user_input or "") == size


def test_a_request_cannot_be_changed() -> None:
    request = ScanRequest.model_validate({"image_url": "https://photos.example/"})
    with pytest.raises(ValidationError):
        request.image_url = "https://other.example/"  # type: ignore[misc]  # that is the point
