"""docs/eval.md names every option of `bunri eval` and every field that it writes."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from cli.evaluation.comparison import Change, Comparison
from cli.evaluation.records import Report, Verdict
from cli.main import evaluate

PAGE = (Path(__file__).parent.parent.parent / "docs/eval.md").read_text()


def fields(model: type[BaseModel]) -> set[str]:
    """Names of its fields and of those of the models within."""
    within = [kind for field in model.model_fields.values() for kind in models_in(field.annotation)]
    return set(model.model_fields).union(*map(fields, within))


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


@pytest.mark.parametrize("name", sorted(fields(Report) | fields(Comparison) | set(Verdict) | set(Change)))
def test_every_field_and_word_of_the_output_is_documented(name: str) -> None:
    assert re.search(rf"[`.]{name}(\[\])?`", PAGE)


def test_every_option_is_documented() -> None:
    options = [f"--{name.replace('_', '-')}" for name in inspect.signature(evaluate).parameters if name != "source"]
    assert len(options) >= 10
    assert [option for option in options if f"`{option}`" not in PAGE] == []
