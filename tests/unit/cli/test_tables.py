"""What a run prints for people."""

from io import StringIO

import pytest
from rich.console import Console

from cli.outcome import Outcome
from cli.tables import print_table
from client import ApiProblem

ADVICE = (
    "보내신 파일은 분석할 수 있는 사진 형식이 아니에요. JPEG나 PNG, WebP 사진으로 바꿔 다시 보내 주세요. "
    "웹페이지 주소가 아니라 사진 파일의 주소여야 해요."
)


@pytest.mark.parametrize("width", range(70, 140))
def test_no_word_of_a_text_is_lost_however_wide_the_terminal(width: int) -> None:
    refusal = ApiProblem(415, {"code": "source.unsupported_media", "detail": ADVICE}, None)
    console = Console(width=width, file=StringIO())
    print_table([Outcome("photo.jpg", refusal=refusal)], console)
    assert isinstance(console.file, StringIO)
    assert "…" not in console.file.getvalue()
