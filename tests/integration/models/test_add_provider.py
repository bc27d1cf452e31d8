"""Another provider is one folder and one entry of a table: a toy one answers scans and chats through the pipeline."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

import pytest

from pipeline import build
from pipeline.models import OpenGate
from pipeline.models.provider import HostedClient
from pipeline.run import Pipeline
from pipeline.settings import PipelineSettings
from pipeline.types import AnswerForm, Checkpoints, JobInput, PipelineResult, StageEvent
from tests.support import toy_provider
from tests.support.image_server import image_server, reply
from tests.support.openai_server import PROSE, WRITTEN

MODEL = "gpt-5.6-terra"


class CountingGate(OpenGate):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def call(self, model: str) -> AbstractAsyncContextManager[None]:
        self.calls.append(model)
        return nullcontext()


@pytest.fixture
def gate() -> CountingGate:
    return CountingGate()


@pytest.fixture
async def pipeline(monkeypatch: pytest.MonkeyPatch, gate: CountingGate) -> AsyncIterator[Pipeline]:
    """Without a key for OpenAI, so that the toy is the first provider which is configured."""
    monkeypatch.setitem(build.PROVIDERS, "toy", toy_provider.open_client)
    pipeline = build.build_pipeline(PipelineSettings.model_validate({"fetch_allow": "127.0.0.1"}), gate)
    yield pipeline
    await pipeline.close()


class NoReuse:
    async def find(self, fingerprint: str) -> PipelineResult | None:
        del fingerprint
        return None


async def emit_nothing(*events: StageEvent) -> None:
    del events


async def run(pipeline: Pipeline, job: JobInput, pieces: list[str]) -> PipelineResult:
    async def on_text(piece: str, *, restart: bool = False) -> None:
        assert not restart
        pieces.append(piece)

    finished = await pipeline.run(job, resume=Checkpoints(), emit=emit_nothing, reuse=NoReuse(), on_text=on_text)
    return finished.result


async def test_it_answers_a_scan(pipeline: Pipeline, gate: CountingGate, samples: Path) -> None:
    with image_server() as origin:
        url = origin.on("/photo.jpg", reply(200, (samples / "glass-1.jpg").read_bytes()))
        result = await run(pipeline, JobInput(image_url=url), [])
    assert pipeline.models == ("local", MODEL)
    assert (result.observation.model, result.observation.usage.output_tokens) == (MODEL, 10)
    assert result.rule.category == "유리병"
    assert result.answer.user_answer == WRITTEN["user_answer"]
    assert gate.calls == [MODEL, MODEL], "every call asks the gate, whoever the provider is"


async def test_it_answers_a_question_and_streams_the_text(pipeline: Pipeline, gate: CountingGate) -> None:
    pieces: list[str] = []
    result = await run(pipeline, JobInput(user_input="유리병", form=AnswerForm.PROSE), pieces)
    assert result.answer.model == MODEL
    assert "".join(pieces) == result.answer.user_answer == "".join(PROSE)
    assert len(pieces) == len(PROSE)
    assert gate.calls == [MODEL, MODEL]


async def test_it_is_closed_with_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    client = toy_provider.open_client(PipelineSettings.model_validate({}))
    assert client is not None

    def open_client(_settings: PipelineSettings) -> HostedClient:
        return client

    monkeypatch.setitem(build.PROVIDERS, "toy", open_client)
    await build.build_pipeline(PipelineSettings.model_validate({})).close()
    assert client.is_closed


async def test_the_first_provider_that_is_configured_serves_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_settings: PipelineSettings) -> HostedClient | None:
        raise AssertionError

    monkeypatch.setitem(build.PROVIDERS, "toy", never)
    pipeline = build.build_pipeline(PipelineSettings.model_validate({"openai_api_key": "sk-test"}))
    assert pipeline.models == ("local", MODEL)
    await pipeline.close()


def test_without_a_key_no_sdk_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.build import PROVIDERS; from pipeline.settings import PipelineSettings;"
        "settings = PipelineSettings.model_validate({});"
        "print([each(settings) for each in PROVIDERS.values()], 'openai' in sys.modules)"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[None] False"
