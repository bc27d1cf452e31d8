"""The api's image needs no model SDK, no Pillow and no runtime for models."""

import subprocess
import sys

import pytest

CODE = """
import sys
import api.app
print("\\n".join(sys.modules))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Names of the modules that importing the application loads in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_application_is_loaded(loaded: set[str]) -> None:
    assert "api.scans" in loaded


@pytest.mark.parametrize("module", ["openai", "PIL", "onnxruntime", "numpy", "boto3", "aiohttp"])
def test_importing_the_application_does_not_load(loaded: set[str], module: str) -> None:
    assert module not in loaded


def test_importing_the_application_loads_no_stage_of_the_pipeline(loaded: set[str]) -> None:
    stages = {"run", "build", "fetch", "image", "vision", "rules", "answer", "model"}
    assert not {f"pipeline.{stage}" for stage in stages} & loaded
