"""ARCHITECTURE.md names files and functions that exist, and none of the source is missing from its tree."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
HOPS = PAGE.partition("## One job, hop by hop")[2].partition("##")[0]
PACKAGES = ("kit", "pipeline", "jobs", "workers", "api", "client", "cli")


def test_there_are_eight_hops() -> None:
    assert re.findall(r"^(\d)\. ", HOPS, re.MULTILINE) == list("12345678")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z_/]+\.py)`", HOPS))))
def test_each_file_of_a_hop_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(("path", "function"), re.findall(r"`([a-z_/]+\.py)` `([A-Za-z_.]+)`", HOPS))
def test_each_function_of_a_hop_exists(path: str, function: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function.rpartition(".")[2] in names


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tree_names_every_module_in_its_packages_own_part(package: str) -> None:
    tree = PAGE.partition("## Tree")[2].partition("## Import direction")[0]
    part = re.split(r"^(?=\w+/ )", tree.partition(f"\n{package}/ ")[2], maxsplit=1, flags=re.MULTILINE)[0]
    modules = {path.name for path in (ROOT / package).rglob("*.py")} - {"__init__.py", "__main__.py"}
    assert sorted(name for name in modules if not re.search(rf"\b{name}", part)) == []
