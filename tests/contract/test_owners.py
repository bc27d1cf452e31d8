"""Each library has one owner: nobody else imports it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("pipeline", "workers", "api", "client", "cli")

OWNERS = {
    "openai": {"pipeline/model/openai.py"},
    "httpx2": {"pipeline/model/openai.py", "pipeline/model/wire.py"},
    "onnxruntime": {"pipeline/model/local.py"},
    "boto3": {"pipeline/storage.py"},
    "pillow_heif": {"pipeline/image.py"},
    "botocore": {"pipeline/storage.py"},
    "PIL": {"pipeline/image.py", "cli/evaluation/chart.py"},
    "aiohttp": {"pipeline/dial.py", "pipeline/fetch.py", "pipeline/model/openai.py", "pipeline/model/wire.py"},
    "redis": {
        "workers/jobs/connection.py",
        "workers/jobs/ledger.py",
        "workers/jobs/scripts.py",
        "cli/redis.py",
    },
    "hiredis": {"workers/jobs/connection.py"},
    "celery": {
        "workers/app.py",
        "workers/pool.py",
        "workers/scan.py",
        "workers/consumer.py",
        "workers/jobs/message.py",
        "workers/jobs/publisher.py",
    },
    "kombu": {"workers/broker.py", "workers/pool.py", "workers/jobs/transport.py", "workers/jobs/message.py"},
    "prometheus_client": {"api/metrics.py", "api/meta.py"},
    "rich": {"cli/main.py", "cli/runs.py", "cli/tables.py", "cli/evaluation/command.py", "cli/evaluation/printed.py"},
    "jinja2": {"cli/evaluation/page.py"},
    "typer": {"cli/main.py"},
    "rapidfuzz": {"pipeline/names.py"},
    "standardwebhooks": {"client/webhooks.py"},
}


def imports() -> Iterator[tuple[str, str]]:
    """File and top-level package of every import, those inside functions included."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Import():
                        names = [alias.name for alias in node.names]
                    case ast.ImportFrom(module=str(module), level=0):
                        names = [module]
                    case _:
                        continue
                yield from ((str(path.relative_to(ROOT)), name.partition(".")[0]) for name in names)


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_by_its_owners_only(library: str) -> None:
    assert {path for path, name in imports() if name == library} == OWNERS[library]


def test_adapters_are_imported_by_build_and_each_other_only() -> None:
    adapters = {"hosted", "local", "openai", "responses", "wire", "words"}
    importers = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in {f"pipeline.model.{name}" for name in adapters}
    }
    assert importers <= {"pipeline/build.py", *(f"pipeline/model/{name}.py" for name in adapters)}
    assert "pipeline/build.py" in importers
