"""ARCHITECTURE.md names files and functions that exist. Its tree is made by `make docs` (test_docs.py)."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
HOPS = PAGE.partition("## One job, hop by hop")[2].partition("```")[0]
FOUND = PAGE.partition("## Where do I find")[2].partition("##")[0]


def test_there_are_eight_hops() -> None:
    assert re.findall(r"^(\d)\. ", HOPS, re.MULTILINE) == list("12345678")


TO_COME = {"api/routes/batches.py"}
PATHS = sorted(set(re.findall(r"`([a-z_/0-9]+\.(?:py|toml))`", HOPS + FOUND)) - TO_COME)


@pytest.mark.parametrize("path", PATHS)
def test_each_file_of_a_hop_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(("path", "function"), re.findall(r"`([a-z_/]+\.py)`\s+`([A-Za-z_.]+)`", HOPS + FOUND))
def test_each_function_of_a_hop_exists(path: str, function: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names = {node.name for node in ast.walk(tree) if isinstance(node, definitions)}
    assert function.rpartition(".")[2] in names
