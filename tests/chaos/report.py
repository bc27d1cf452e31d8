"""What the suite prints: one JSON line and one table row for each fault, and the table in docs/reliability.md."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.chaos.registry import REGISTRY

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

Line = dict[str, Any]
"""A JSON line: one fault, once."""


def json_line(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False)


def newest(file: Path) -> list[Line]:
    """The last line of each fault, in the order in which faults are run."""
    lines = {line["fault"]: line for line in map(json.loads, file.read_text().splitlines())}
    return [lines[name] for name in REGISTRY.faults if name in lines]


def header() -> str:
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def row(line: Line) -> str:
    simulated = [f"simulated: {line['simulated']}"] if line["simulated"] else []
    settings = [f"`{name}={value}`" for name, value in line["settings"].items()]
    cells = (
        line["fault"],
        line["title"],
        line["accepted"],
        line["ended"],
        line["lost"],
        line["extra_calls"],
        "–" if line["recovered"] is None else line["recovered"],
        f"{line['events_lost']} / {line['events_repeated']}",
        ", ".join(line["broken"]) or "none",
        "; ".join(line["notes"] + simulated + settings),
    )
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def write(page: Path, lines: list[Line]) -> None:
    """Put the table between the page's two marks, with what each fault promises."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    promises = [f"- **{line['fault']}** {REGISTRY.faults[line['fault']].promise}" for line in lines]
    made = [BEGIN, "", f"{_measured(lines)}", "", header(), *map(row, lines), "", *promises, "", END]
    page.write_text(before + "\n".join(made) + after)


def _measured(lines: Iterable[Line]) -> str:
    runs = {(line["date"], line["jobs"], line["seed"]) for line in lines}
    told = [f"{date} by `python -m tests.chaos --jobs {jobs} --seed {seed}`" for date, jobs, seed in sorted(runs)]
    return f"Measured on {', '.join(told)}."
