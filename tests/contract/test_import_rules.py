"""Each import rule of pyproject.toml can fail: a wrong import, planted in a copy of the tree, is refused."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
RULES: dict[str, str] = {rule["id"]: rule["name"] for rule in LINTER["contracts"]}

PLANTS = [
    ("layers", "jobs/planted.py", "workers.app"),
    ("layers", "kit/planted.py", "pipeline.errors"),
    ("layers", "api/planted_worker.py", "workers.execute.preview"),
    ("client-alone", "client/planted.py", "jobs.model"),
    ("client-users", "api/planted.py", "client.models"),
    ("pipeline-data", "api/routes/planted.py", "pipeline.questions.mentions"),
    ("pipeline-data", "jobs/planted_room.py", "pipeline.newborn"),
    ("pipeline-rooms", "pipeline/knowledge/planted.py", "pipeline.intake.media"),
    ("pipeline-rooms", "pipeline/errors.py", "pipeline.knowledge.imagenet_labels"),
    ("model-adapters", "pipeline/planted.py", "pipeline.models.hosted"),
    ("worker-rooms", "workers/execute/planted.py", "workers.maintenance.sweep"),
    ("owner-of-queue", "workers/execute/planted_queue.py", "celery"),
    ("owner-of-redis", "jobs/planted_redis.py", "redis"),
    ("owner-of-web", "workers/maintenance/planted.py", "starlette"),
    ("owner-of-s3", "pipeline/storage/planted.py", "boto3"),
    ("owner-of-openai", "pipeline/models/planted.py", "openai"),
    ("owner-of-onnx", "pipeline/models/local/planted.py", "onnxruntime"),
    ("owner-of-pillow", "pipeline/intake/planted.py", "PIL"),
    ("owner-of-aiohttp", "pipeline/intake/planted_http.py", "aiohttp"),
    ("owner-of-fuzzy", "pipeline/questions/planted.py", "rapidfuzz"),
    ("owner-of-metrics", "workers/planted.py", "prometheus_client"),
    ("owner-of-terminal", "api/planted_terminal.py", "typer"),
    ("owner-of-templates", "cli/scan/planted.py", "jinja2"),
    ("owner-of-webhook-check", "workers/webhooks/planted.py", "standardwebhooks"),
]
"""A rule, a file, and what it imports though it must not. `pipeline.newborn` is a room that no rule names."""


def verdicts(root: Path) -> dict[str, str]:
    """Rule's name → what the linter says against it; "" where it is kept."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"COLUMNS": "400"}, capture_output=True, text=True, check=False
    )
    kept = re.findall(r"^(.+) KEPT", done.stdout, re.MULTILINE)
    said = re.split(r"^(.+)\n-+\n", done.stdout.partition("Broken contracts\n")[2], flags=re.MULTILINE)
    return dict.fromkeys(kept, "") | dict(zip(said[1::2], said[2::2], strict=True))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The linter's verdicts on a copy of the tree in which every plant stands."""
    root = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / "pyproject.toml", root)
    for package in LINTER["root_packages"]:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("resources", "web", "*.pyc"))
    (root / "pipeline/newborn.py").touch()
    for _, file, module in PLANTS:
        with (root / file).open("a") as source:
            source.write(f"\nimport {module}\n")
    return verdicts(root)


def test_each_rule_is_shown_to_be_able_to_fail() -> None:
    assert {rule for rule, _, _ in PLANTS} == RULES.keys()


@pytest.mark.parametrize(("rule", "file", "module"), PLANTS)
def test_a_wrong_import_is_refused(rule: str, file: str, module: str, planted: dict[str, str]) -> None:
    importer = file.removesuffix(".py").replace("/", ".")
    assert f"{importer} -> {module}" in planted[RULES[rule]]


def test_a_room_without_a_place_is_refused(planted: dict[str, str]) -> None:
    assert "newborn" in planted[RULES["pipeline-rooms"]]


def test_the_tree_itself_breaks_no_rule() -> None:
    assert verdicts(ROOT) == dict.fromkeys(RULES.values(), "")
