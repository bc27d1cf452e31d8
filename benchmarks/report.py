"""How a benchmark says what it found: a table for people, then the same as one line of JSON."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence

Row = Mapping[str, object]

GAP = 2


class Report:
    """Made when the benchmark begins: the load is that of both ends, because it makes some itself."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._load_before = os.getloadavg()[0]

    def print(self, rows: Sequence[Row], *notes: str, **more: object) -> None:
        """Rows have the same columns. `notes` stand below the table; `more` is for the JSON only."""
        loads = self._load_before, os.getloadavg()[0]
        print(f"{self._name}: {os.cpu_count()} cores, load {loads[0]:.1f} to {loads[1]:.1f}")
        print_table(rows)
        for note in notes:
            print(note)
        whole = {"benchmark": self._name, "cores": os.cpu_count(), "load": [round(load, 1) for load in loads]}
        found = whole | {"rows": [_rounded(row) for row in rows]} | _rounded(more)
        print(json.dumps(found, ensure_ascii=False), flush=True)


def print_table(rows: Sequence[Row]) -> None:
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) + GAP for column in zip(*cells, strict=True)]
    for line in cells:
        first, *others = zip(line, widths, strict=True)
        print(first[0].ljust(first[1]) + "".join(cell.rjust(width) for cell, width in others))


def ratio(measured: float, reference: float) -> float | None:
    return measured / reference if reference else None


def compared(ours: Row, reference: Row, names: Row) -> Row:
    """Ours ÷ reference, in each column of figures; `names` are what the others say."""
    return {name: names.get(name, _divided(value, reference[name])) for name, value in ours.items()}


def _divided(ours: object, reference: object) -> float | None:
    if isinstance(ours, float) and isinstance(reference, float):
        return ratio(ours, reference)
    return None


def percentile(values: Sequence[float], percent: int) -> float:
    """Never beyond the largest."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def _rounded(row: Row) -> dict[str, object]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
