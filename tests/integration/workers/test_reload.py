"""Prompts and messages edited under a running API and a running worker process."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from pipeline.build import build_pipeline
from pipeline.knowledge.knowledge import Knowledge
from pipeline.settings import PipelineSettings
from pipeline.types import Checkpoints, JobInput, Locale, PipelineResult, StageEvent
from tests.support.api_server import ApiServer, running_api
from tests.support.image_server import ImageServer, reply
from tests.support.openai_server import base_url, purpose_of
from tests.support.receiver import SECRET, Receiver, receiver
from tests.support.resources import copied_resources, edit, mounted
from tests.support.wait import eventually
from tests.support.worker import PHOTO, Gate, working

SCAN = "/api/v1/scan"
EVERY = 0.05


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    return copied_resources(tmp_path)


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as hook:
        yield hook


@asynccontextmanager
async def service(
    ledger: Ledger, jobs: JobsSettings, model: ImageServer, resources: Path, **worker: str
) -> AsyncIterator[ApiServer]:
    """A worker process and an API on the same resources, both on the look-out."""
    of_worker: dict[str, Any] = {"PIPELINE_RESOURCES": str(resources), "PIPELINE_WATCH_EVERY": str(EVERY), **worker}
    of_api = PipelineSettings.model_validate({"resources": resources, "watch_every": EVERY, "fetch_allow": "127.0.0.1"})
    jobs = jobs.model_copy(update={"webhook_secrets": SecretStr(SECRET)})
    async with (
        working(ledger, jobs.redis_url.get_secret_value(), model, **of_worker),
        running_api(jobs, pipeline=of_api) as api,
    ):
        await eventually(lambda: all_use(api, version_of(resources)))
        yield api


def version_of(resources: Path) -> str:
    return Knowledge.load(resources).version


def say(resources: Path, word: str) -> str:
    """Edit the prompt of the answers. Returns the version that the resources have now."""
    edit(resources / "prompts/answer.md", "You tell", f"{word}. You tell")
    return version_of(resources)


async def all_use(api: ApiServer, version: str) -> bool:
    shown = (await api.client.get("/api/v1/pipeline")).json()
    versions = {each["pipeline_version"] for each in [shown, *shown["workers"]]}
    return bool(shown["workers"]) and versions == {version}


async def check(api: ApiServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.client.get("/readyz")).json()["checks"][name]
    return found


async def metrics(api: ApiServer) -> dict[str, float]:
    lines = (await api.client.get("/metrics")).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


async def submitted(api: ApiServer, url: str, question: str = "", **asked: Any) -> dict[str, Any]:
    taken: dict[str, Any] = (
        await api.client.post(SCAN, json={"image_url": url, "user_input": question} | asked)
    ).json()
    return taken


async def ended(api: ApiServer, taken: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = (await api.client.get(f"{taken['status_url']}?wait=30")).json()
    return job


def versions_in(job: dict[str, Any]) -> set[str]:
    """Wherever the job and its result name one."""
    result = job["result"]
    return {
        job["pipeline_version"],
        result["pipeline_version"],
        result["classification_result"]["meta"]["pipeline_version"],
    }


def asked_with(model: ImageServer, word: str) -> list[str]:
    """What the requests that hold the word were for."""
    return [purpose_of(request) for request in model.requests if word.encode() in request.body]


async def has_asked(model: ImageServer) -> bool:
    return bool(model.requests)


async def test_new_jobs_use_an_edited_prompt_and_a_job_in_flight_ends_with_the_old_one(
    ledger: Ledger, jobs_settings: JobsSettings, resources: Path, origin: ImageServer, model: ImageServer
) -> None:
    old = version_of(resources)
    async with service(ledger, jobs_settings, model, resources) as api:
        gate = model.fallback = Gate()
        in_flight = await submitted(api, origin.url(PHOTO))
        await eventually(lambda: has_asked(model))
        new = say(resources, "ZEBRA17")
        await eventually(lambda: all_use(api, new))
        gate.open()
        first = await ended(api, in_flight)
        assert [purpose_of(request) for request in model.requests] == ["vision", "answer"]
        assert asked_with(model, "ZEBRA17") == []
        assert (first["status"], versions_in(first)) == ("completed", {old})

        taken = await submitted(api, origin.url(PHOTO))
        second = await ended(api, taken)
        assert asked_with(model, "ZEBRA17") == ["answer"]
        assert taken["pipeline_version"] == new
        assert (second["cached"], versions_in(second)) == (False, {new})
        third = await ended(api, await submitted(api, origin.url(PHOTO)))
        assert (third["cached"], versions_in(third)) == (True, {new})
        result = (await api.client.get(taken["result_url"])).json()
        assert result["pipeline_result"]["pipeline_version"] == new


async def test_a_bad_edit_is_refused_visibly_and_its_repair_is_taken(
    ledger: Ledger,
    jobs_settings: JobsSettings,
    resources: Path,
    origin: ImageServer,
    model: ImageServer,
    capfd: pytest.CaptureFixture[str],
) -> None:
    old = version_of(resources)
    prompt = resources / "prompts/answer.md"
    async with service(ledger, jobs_settings, model, resources) as api:
        assert (await check(api, "resources"))["ok"]
        whole = prompt.read_text("utf-8")
        prompt.write_text(whole + "\n{{SECRETS}}\n", "utf-8")

        async def both_have_refused() -> bool:
            figures = await metrics(api)
            return all(figures[f'bunri_resources_refused{{process="{each}"}}'] == 1 for each in ("api", "worker"))

        await eventually(both_have_refused)
        reply = await api.client.get("/readyz")
        assert reply.status_code == 200
        assert not reply.json()["checks"]["resources"]["ok"]
        assert reply.json()["checks"]["resources"]["detail"].count("answer.md") == 2
        assert "{{SECRETS}}" in reply.json()["checks"]["resources"]["detail"]
        shown = (await api.client.get("/api/v1/pipeline")).json()
        assert shown["stale"]
        assert shown["refusal"]["version"] == shown["workers"][0]["refusal"]["version"] == shown["on_disk"]
        job = await ended(api, await submitted(api, origin.url(PHOTO)))
        assert versions_in(job) == {old}
        assert asked_with(model, "SECRETS") == []

        prompt.write_text(whole.replace("You tell", "ZEBRA17. You tell"), "utf-8")
        await eventually(lambda: all_use(api, version_of(resources)))
        figures = await metrics(api)
        assert {value for name, value in figures.items() if name.startswith("bunri_resources_")} == {0}
        job = await ended(api, await submitted(api, origin.url(PHOTO), "또?"))
        assert asked_with(model, "ZEBRA17") == ["answer"]
    logged = [orjson.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    refusals = [line for line in logged if line["event"] == "resources.refused" and line.get("process") == "worker"]
    assert [(line["level"], line["goes_on_with"]) for line in refusals] == [("error", old)]
    assert "answer.md" in refusals[0]["detail"]


async def test_a_mounted_configmap_changes_messages_of_api_and_webhooks(
    ledger: Ledger,
    jobs_settings: JobsSettings,
    resources: Path,
    tmp_path: Path,
    origin: ImageServer,
    model: ImageServer,
    hook: Receiver,
) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    mounted(resources, mount)
    gone = origin.on("/gone.jpg", reply(404))
    async with service(ledger, jobs_settings, model, mount, WORKERS_WEBHOOK_SECRETS=SECRET) as api:
        source = Knowledge.load(resources).texts.error("source.not_found", Locale.KO).message
        edit(resources / "messages/ko.toml", source, "얼룩말17")
        mounted(resources, mount)
        await eventually(lambda: all_use(api, version_of(mount)))
        catalogue = {entry["code"]: entry for entry in (await api.client.get("/api/v1/errors")).json()}
        assert catalogue["source.not_found"]["messages"]["ko"]["message"] == "얼룩말17"
        job = await ended(api, await submitted(api, gone, callback_url=hook.url))
        assert (job["status"], job["pipeline_version"]) == ("failed", version_of(mount))
        assert "얼룩말17" in job["error"]["message"]

        async def is_told() -> bool:
            return bool(hook.messages)

        await eventually(is_told)
        assert "얼룩말17" in hook.messages[0]["data"]["error"]["message"]


class _Steps(list[StageEvent]):
    """The pipeline's `emit` and `reuse`."""

    async def __call__(self, *events: StageEvent) -> None:
        self.extend(events)

    async def find(self, _fingerprint: str) -> PipelineResult | None:
        return None


async def test_what_an_earlier_version_saw_is_kept_while_the_taxonomy_knows_it(
    resources: Path, origin: ImageServer, model: ImageServer
) -> None:
    settings = {"resources": resources, "openai_api_key": "sk-test", "openai_base_url": base_url(model)}
    first = build_pipeline(PipelineSettings.model_validate(settings | {"fetch_allow": "127.0.0.1"}))
    job, steps = JobInput(image_url=origin.url(PHOTO)), _Steps()
    seen = (await first.run(job, resume=Checkpoints(), emit=steps, reuse=steps)).result.observation
    say(resources, "ZEBRA17")
    second = first.with_knowledge(Knowledge.load(resources))
    model.requests.clear()

    kept = (await second.run(job, resume=Checkpoints(observation=seen), emit=steps, reuse=steps)).result
    assert [purpose_of(request) for request in model.requests] == ["answer"]
    assert (kept.observation.pipeline_version, kept.pipeline_version) == (first.version, second.version)

    gone = seen.model_copy(update={"situation_tags": ("없어진_태그",)})
    anew = (await second.run(job, resume=Checkpoints(observation=gone), emit=steps, reuse=steps)).result
    assert [purpose_of(request) for request in model.requests] == ["answer", "vision", "answer"]
    assert (anew.observation.pipeline_version, anew.pipeline_version) == (second.version, second.version)
    await second.close()
