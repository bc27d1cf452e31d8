"""The confusion matrix as rows of numbers, for text, picture and page alike."""

from dataclasses import dataclass

from cli.evaluation.metrics import FAILED
from cli.evaluation.records import Figures
from pipeline.knowledge.rulebook import UNCLASSIFIED


@dataclass(frozen=True)
class Matrix:
    """`counts[i][j]`: photos of `truths[i]` that were predicted as `said[j]`. Names are English."""

    truths: tuple[str, ...]
    said: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    hits: tuple[tuple[bool, ...], ...]


def matrix_of(figures: Figures) -> Matrix:
    """Rows are categories with photos, columns are predictions; abstentions and failures come last."""
    names = {each.category: each.name for each in figures.classes}
    names = {**names, UNCLASSIFIED: names.get(UNCLASSIFIED, "abstained"), FAILED: FAILED}
    said = {name for row in figures.confusion.values() for name in row}
    truths = [name for name in names if name in figures.confusion]
    columns = [name for name in names if name in said or name in truths]
    return Matrix(
        truths=tuple(names[each] for each in truths),
        said=tuple(names[each] for each in columns),
        counts=tuple(tuple(figures.confusion[truth].get(each, 0) for each in columns) for truth in truths),
        hits=tuple(tuple(truth == each for each in columns) for truth in truths),
    )
