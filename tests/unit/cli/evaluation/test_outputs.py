"""The page, the picture and the text of a report."""

import re
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from cli.evaluation import page
from cli.evaluation.chart import draw_matrix
from cli.evaluation.console_report import print_report
from cli.evaluation.matrix import matrix_of
from cli.evaluation.page import mistakes_of, render_page
from cli.evaluation.records import Report
from pipeline.types import SourceImage
from tests.support.evaluation import item, prediction, report

PICTURE = SourceImage(media_type="image/jpeg", data=b"\xff\xd8", width=1, height=1, sha256="5a")
HOSTILE = "<script>alert(1)</script>.jpg"


@pytest.fixture
def mixed() -> Report:
    return report(
        [
            item("종이", prediction("종이"), "right.jpg"),
            item("종이", prediction("유리병", 0.6), HOSTILE),
            item("종이", prediction("유리병", 0.8), "sure.jpg"),
            item("종이", prediction("미분류", 0.4, guess="금속류"), "abstained.jpg"),
            item("유리병", prediction(None, None, error="source.corrupt_image"), "[bold]broken.jpg"),
        ]
    )


def test_mistakes_come_wrong_before_abstained_before_failed_and_the_surest_first(mixed: Report) -> None:
    shown = [each.photo for each in mistakes_of(mixed)]
    assert shown == ["sure.jpg", HOSTILE, "abstained.jpg", "[bold]broken.jpg"]


def test_the_page_shows_each_mistake_once_with_its_photo_where_there_is_one(mixed: Report) -> None:
    text = render_page(mixed, {"sure.jpg": PICTURE, "abstained.jpg": PICTURE})
    assert re.findall(r'data-verdict="(\w+)"', text) == ["wrong", "wrong", "abstained", "failed"]
    assert text.count("data:image/jpeg;base64,/9g=") == 2


def test_the_page_runs_nothing_asks_nobody_and_escapes_what_it_shows(mixed: Report) -> None:
    text = render_page(mixed, {})
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.findall(r"https?://", text)


def test_a_long_list_of_mistakes_is_cut_and_the_page_says_so(mixed: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_SHOWN_MISTAKES", 1)
    text = render_page(mixed, {})
    assert text.count("data-verdict") == 1
    assert "3 more" in text


def test_the_matrix_has_a_column_for_failures_and_none_for_what_did_not_occur(mixed: Report) -> None:
    matrix = matrix_of(mixed.figures)
    assert matrix.truths == ("Paper", "Glass bottles")
    assert matrix.said == ("Paper", "Glass bottles", "abstained", "failed")
    assert matrix.counts == ((1, 2, 1, 0), (0, 0, 0, 1))


def test_the_picture_grows_with_the_matrix(mixed: Report, tmp_path: Path) -> None:
    path = tmp_path / "matrix.png"
    draw_matrix(matrix_of(mixed.figures), "local/test", path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        wide, high = image.size
        colours = {colour for _, colour in image.getcolors(100_000) or []}
    assert wide > high
    assert len(colours) > 4


def test_the_text_shows_codes_and_takes_no_name_for_markup(mixed: Report) -> None:
    console = Console(width=120, file=StringIO())
    print_report(mixed, console)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert all(shown in text for shown in ("source.corrupt_image", "local/test", "20.0%", "유리병"))
