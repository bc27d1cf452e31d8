"""The report as one HTML file: no scripts, no external links, photos of the mistakes inlined."""

from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files

import jinja2

from cli.evaluation.console_report import percent, run_lines
from cli.evaluation.matrix import matrix_of
from cli.evaluation.records import Item, Report, Verdict
from pipeline.types import SourceImage

TEMPLATE = "page.html"

MAX_SHOWN_MISTAKES = 120


def mistakes_of(report: Report) -> list[Item]:
    """The items that the page shows: by verdict, wrong ones first, then by falling confidence."""
    order = list(Verdict)
    wrong = [item for item in report.items if item.verdict is not Verdict.RIGHT]
    ranked = sorted(wrong, key=lambda item: (order.index(item.verdict), -(item.confidence or 0.0), item.photo))
    return ranked[:MAX_SHOWN_MISTAKES]


def render_page(report: Report, pictures: Mapping[str, SourceImage]) -> str:
    """`pictures`: photo → thumbnail. A mistake without one, such as a broken file, is shown by name."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = percent
    template = environment.from_string((files("cli.evaluation") / TEMPLATE).read_text("utf-8"))
    mistakes = mistakes_of(report)
    return template.render(
        report=report,
        figures=report.figures,
        matrix=matrix_of(report.figures),
        mistakes=[(item, _data_uri(pictures.get(item.photo))) for item in mistakes],
        left_out=sum(item.verdict is not Verdict.RIGHT for item in report.items) - len(mistakes),
        run=run_lines(report),
    )


def _data_uri(picture: SourceImage | None) -> str | None:
    if picture is None:
        return None
    return f"data:{picture.media_type};base64,{b64encode(picture.data).decode()}"
