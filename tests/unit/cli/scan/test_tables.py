"""What a run prints for people."""

from io import StringIO

import pytest
from rich.console import Console

from cli.scan.outcome import PhotoOutcome
from cli.scan.tables import print_table
from client import ApiProblem, Job

ADVICE = (
    "보내신 파일은 분석할 수 있는 사진 형식이 아니에요. JPEG나 PNG, WebP 사진으로 바꿔 다시 보내 주세요. "
    "웹페이지 주소가 아니라 사진 파일의 주소여야 해요."
)


@pytest.mark.parametrize("width", range(70, 140))
def test_no_word_of_a_text_is_lost_however_wide_the_terminal(width: int) -> None:
    refusal = ApiProblem(415, {"code": "source.unsupported_media", "detail": ADVICE}, None)
    console = Console(width=width, file=StringIO())
    print_table([PhotoOutcome("photo.jpg", refusal=refusal)], console)
    assert isinstance(console.file, StringIO)
    assert "…" not in console.file.getvalue()


@pytest.mark.parametrize("degraded", [True, False])
def test_a_photo_shows_its_confidence_and_that_the_local_model_stood_in(*, degraded: bool) -> None:
    console = Console(width=120, file=StringIO())
    print_table([PhotoOutcome("photo.jpg", finished(degraded=degraded))], console)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert "0.87" in text
    assert ("degraded" in text) is ("local model" in text) is degraded


def finished(*, degraded: bool) -> Job:
    place = {"major_category": "재활용폐기물", "middle_category": "유리병", "minor_category": None}
    answer = {"disposal_steps": {"step_1": "헹군다"}, "insufficiencies": [], "user_answer": "유리병"}
    result = {
        "classification_result": {"classification": place, "situation_tags": [], "confidence": 0.87},
        "disposal_rules": {},
        "final_answer": answer,
    }
    times = {"created_at": 1.0, "started_at": 1.1, "finished_at": 1.2, "timings": {}}
    about: dict[str, object] = {"pipeline_version": "1a", "model": "local/test", "metadata": {}, "error": None}
    progress = {"job_id": "1", "status": "completed", "stage": "done", "progress": 100, "attempts": 1}
    return Job.model_validate({**progress, **about, **times, "degraded": degraded, "result": result})
