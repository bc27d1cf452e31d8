"""Each library has one owner: nobody else imports it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("kit", "pipeline", "jobs", "workers", "api", "client", "cli")

OWNERS = {
    "openai": {"pipeline/models/openai/client.py"},
    "httpx2": {"pipeline/models/openai/http.py"},
    "onnxruntime": {"pipeline/models/local/vision.py"},
    "boto3": {"pipeline/storage/s3.py"},
    "pillow_heif": {"pipeline/intake/image.py"},
    "botocore": {"pipeline/storage/s3.py"},
    "PIL": {"pipeline/intake/image.py", "cli/evaluation/chart.py"},
    "aiohttp": {
        "kit/http.py",
        "pipeline/intake/fetch.py",
        "pipeline/models/openai/http.py",
    },
    "redis": {
        "jobs/redis/connection.py",
        "jobs/ledger/ledger.py",
        "jobs/redis/scripts.py",
        "cli/stack/redis.py",
    },
    "hiredis": {"jobs/redis/connection.py"},
    "celery": {
        "workers/app.py",
        "workers/runtime/pool.py",
        "workers/execute/runner.py",
        "workers/runtime/consumer.py",
        "jobs/broker/message.py",
        "jobs/broker/celery_sender.py",
    },
    "kombu": {
        "workers/runtime/channel.py",
        "workers/runtime/pool.py",
        "jobs/broker/options.py",
        "jobs/broker/message.py",
    },
    "prometheus_client": {"api/metrics.py", "api/routes/meta.py"},
    "rich": {
        "cli/main.py",
        "cli/terminal.py",
        "cli/scan/runs.py",
        "cli/scan/tables.py",
        "cli/evaluation/command.py",
        "cli/evaluation/console_report.py",
    },
    "jinja2": {"cli/evaluation/page.py"},
    "typer": {"cli/main.py", "cli/terminal.py"},
    "rapidfuzz": {"pipeline/questions/mentions.py"},
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
