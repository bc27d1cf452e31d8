"""Reads one YAML file under resources/ into a pydantic model. Collects mistakes, so that all are reported at once."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
Key = TypeVar("Key", str, int)


def read_yaml(path: Path, model: type[Model], mistakes: list[str]) -> Model | None:
    """None if the file is unreadable or not such a model; each reason is then a line in `mistakes`, with the file name.

    A key that occurs twice in one mapping is a mistake.
    """
    try:
        data = yaml.load(path.read_text("utf-8"), _UniqueKeyLoader)  # noqa: S506 — it is a safe loader
        return model.model_validate(data)
    except ValidationError as error:
        mistakes += [f"{path.name}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mistakes.append(f"{path.name}: {error}")
    return None


def duplicates(keys: Iterable[Key]) -> list[Key]:
    return [key for key, count in Counter(keys).items() if count > 1]


class _UniqueKeyLoader(yaml.CSafeLoader):
    """Refuses a key that occurs twice; plain PyYAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 — PyYAML's signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := duplicates(keys):
            raise yaml.constructor.ConstructorError(None, None, f"listed twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep=deep)
