"""What the suite prints: one JSON line and one table row for each fault, and the table in docs/reliability.md."""

import json
from pathlib import Path

from tests.chaos.run import Report

BEGIN, END = "<!-- Made by `python -m tests.chaos --doc`; run it again. -->", "<!-- End of what is made. -->"

COLUMNS = (
    "fault",
    "what happens",
    "accepted",
    "ended",
    "lost",
    "calls beyond the minimum",
    "recovered after, s",
    "events lost / repeated",
    "broken",
    "notes",
)


def json_line(report: Report) -> str:
    return json.dumps(report.line, ensure_ascii=False)


def header() -> str:
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def row(report: Report) -> str:
    figures = report.figures
    simulated = [f"simulated: {report.fault.simulated}"] if report.fault.simulated else []
    settings = [f"`{name}={value}`" for name, value in report.fault.env.items()]
    cells = (
        report.fault.id,
        report.fault.title,
        figures["accepted"],
        figures["ended"],
        figures["lost"],
        figures["extra_calls"],
        "–" if figures["recovered"] is None else figures["recovered"],
        f"{figures['events_lost']} / {figures['events_repeated']}",
        ", ".join(report.broken) or "none",
        "; ".join(report.notes + simulated + settings),
    )
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def write(page: Path, reports: list[Report], *, command: str, date: str) -> None:
    """Put the table between the page's two marks."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    promises = [f"- **{report.fault.id}** {report.fault.promise}" for report in reports]
    made = [BEGIN, "", f"Measured on {date} by `{command}`.", "", header(), *map(row, reports), "", *promises, "", END]
    page.write_text(before + "\n".join(made) + after)
