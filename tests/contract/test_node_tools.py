"""The tools for the page's JavaScript come from any npm registry, in exactly the versions that were tried."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = json.loads((ROOT / "package-lock.json").read_text())


def test_the_lock_names_no_registry() -> None:
    assert [name for name, package in LOCK["packages"].items() if "resolved" in package] == []
    assert "//" not in (ROOT / ".npmrc").read_text()


def test_each_package_is_checked_by_its_hash() -> None:
    assert [name for name, package in LOCK["packages"].items() if name and "integrity" not in package] == []


def test_each_tool_has_one_version() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    assert wanted
    assert [version for version in wanted.values() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
