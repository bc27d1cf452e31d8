"""The api's image needs no model SDK, no Pillow and no runtime for models; `bunri --help` needs next to nothing."""

import subprocess
import sys

import pytest

CODE = """
import sys
import {module}
print("\\n".join(sys.modules))
"""


def loaded_by(module: str) -> set[str]:
    """Names of the modules that importing it loads in a fresh interpreter."""
    command = [sys.executable, "-c", CODE.format(module=module)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return loaded_by("api.app")


def test_the_application_is_loaded(loaded: set[str]) -> None:
    assert "api.routes.scans" in loaded


@pytest.mark.parametrize("module", ["openai", "PIL", "onnxruntime", "numpy", "boto3", "aiohttp"])
def test_importing_the_application_does_not_load(loaded: set[str], module: str) -> None:
    assert module not in loaded


def test_importing_the_application_loads_no_stage_of_the_pipeline(loaded: set[str]) -> None:
    rooms = {"run", "build", "intake", "vision", "question", "rules", "answer", "models", "questions"}
    assert not {f"pipeline.{room}" for room in rooms} & loaded


def test_the_command_loads_nothing_that_its_help_does_not_need() -> None:
    heavy = {"pydantic", "httpx", "redis", "celery", "fastapi", "structlog", "jinja2", "PIL", "numpy", "onnxruntime"}
    loaded = loaded_by("cli.main")
    assert "typer" in loaded
    assert not heavy & loaded
