"""A name stands for one thing: no two modules define a class or a module's constant of the same name."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("kit", "pipeline", "jobs", "workers", "api", "cli")
"""Without `client`, a distribution of its own: its models are named as the API's schemas are."""

ALLOWED = {
    "log": "each module's logger",
    "router": "each module's routes, as FastAPI's documentation calls them",
    "CARD": "to be renamed",
    "FILE": "to be renamed",
    "HEADERS": "to be renamed",
    "Line": "to be renamed",
    "MAX_SHOWN_MISTAKES": "to be renamed",
    "MAX_STEPS": "to be renamed",
    "Outcome": "to be renamed",
    "POLL_SECONDS": "to be renamed",
    "Reply": "to be renamed",
    "Report": "to be renamed",
    "Request": "to be renamed",
    "Response": "to be renamed",
    "SHOWN_CANDIDATES": "to be renamed",
    "UNKNOWN": "to be renamed",
    "Value": "to be renamed",
    "WORTH_ASKING": "to be renamed",
    "_INVISIBLE": "to be renamed",
}
"""Names that several modules define on purpose, and why that confuses nobody."""


def overloaded(root: Path, *packages: str) -> dict[str, list[str]]:
    """Each class and module-level name that more than one module defines, with those modules."""
    modules = defaultdict[str, set[str]](set)
    for package in packages:
        for path in (root / package).rglob("*.py"):
            for name in _defined(ast.parse(path.read_text())):
                modules[name].add(str(path.relative_to(root)))
    return {name: sorted(where) for name, where in sorted(modules.items()) if len(where) > 1}


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("__"):
                yield name
            case ast.Assign(targets=targets):
                names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
                yield from (name for name in names if not name.startswith("__"))
            case _:
                pass


def test_no_name_stands_for_two_things() -> None:
    assert {name: where for name, where in overloaded(ROOT, *PACKAGES).items() if name not in ALLOWED} == {}


@pytest.mark.parametrize("name", ALLOWED)
def test_each_exception_is_still_needed(name: str) -> None:
    assert name in overloaded(ROOT, *PACKAGES)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("class Thing: ...", "class Thing: ..."),
        ("Thing = 1", "Thing = 2"),
        ("Thing: int = 1", "a, Thing = 1, 2"),
        ("class Thing: ...", "Thing = 1"),
    ],
)
def test_a_name_that_two_modules_define_is_found(first: str, second: str, tmp_path: Path) -> None:
    for room, source in (("one", first), ("two", second)):
        (tmp_path / room).mkdir()
        (tmp_path / room / "module.py").write_text(source)
    assert overloaded(tmp_path, "one", "two") == {"Thing": ["one/module.py", "two/module.py"]}


def test_what_is_imported_or_local_is_no_second_definition(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "first.py").write_text("class Thing: ...\nLIMIT = 1")
    (tmp_path / "one" / "second.py").write_text(
        "from one.first import Thing\ndef use():\n    LIMIT = 2\n    return LIMIT"
    )
    assert overloaded(tmp_path, "one") == {}
