"""One YAML file under resources/, read into a model. Mistakes are collected, so that all of them are named at once."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
Name = TypeVar("Name", str, int)


def read_yaml(path: Path, model: type[Model], mistakes: list[str]) -> Model | None:
    """None where the file is no such model; then `mistakes` has a line for each reason, with the file's name."""
    try:
        data = yaml.load(path.read_text("utf-8"), _StrictLoader)  # noqa: S506 — it is a safe loader
        return model.model_validate(data)
    except ValidationError as error:
        mistakes += [f"{path.name}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mistakes.append(f"{path.name}: {error}")
    return None


def repeated(names: Iterable[Name]) -> list[Name]:
    return [name for name, count in Counter(names).items() if count > 1]


class _StrictLoader(yaml.CSafeLoader):
    """YAML keeps the last of two equal keys in silence; here that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 — PyYAML's signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := repeated(keys):
            raise yaml.constructor.ConstructorError(None, None, f"listed twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep=deep)
