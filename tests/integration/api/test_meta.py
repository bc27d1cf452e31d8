"""Health, readiness, metrics, the catalogue and the pipeline's description."""

import asyncio
from pathlib import Path

import pytest

from api.http.problems import ALL_CODES
from client import BunriClient
from jobs.circuit import CallCounts, CallOutcome, CircuitStore
from jobs.ledger.ledger import Ledger
from jobs.model import JobError, WorkerBeat
from jobs.settings import JobsSettings
from pipeline.errors import ModelRateLimited
from pipeline.settings import PipelineSettings
from pipeline.types import Refusal, Stage
from tests.support.api_server import ApiServer, running_api
from tests.support.jobs import new_job, result
from tests.support.redis_server import closed_port
from tests.support.resources import copied_resources
from workers.maintenance.heartbeat import Heartbeat


async def beat(ledger: Ledger, version: str, worker: str = "host:1") -> None:
    await ledger.fleet.beat(WorkerBeat(worker=worker, pipeline_version=version, models=("local/test",)))


async def metrics(api: ApiServer) -> dict[str, float]:
    lines = (await api.client.get("/metrics")).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/readyz", 503)])
async def test_probes_may_ask_for_the_status_alone(api: ApiServer, path: str, status: int) -> None:
    reply = await api.client.head(path)
    assert (reply.status_code, reply.content) == (status, b"")


async def test_ready_with_redis_and_a_worker_of_the_same_version(api: ApiServer, ledger: Ledger) -> None:
    await beat(ledger, api.services.knowledge.version)
    reply = await api.client.get("/readyz")
    assert reply.status_code == 200
    assert reply.json()["ready"] is True
    assert reply.json()["pipeline_version"] == api.services.knowledge.version
    assert {name: check["ok"] for name, check in reply.json()["checks"].items()} == {
        "ledger": True,
        "broker": True,
        "workers": True,
        "versions": True,
        "resources": True,
    }


async def test_not_ready_without_a_worker(api: ApiServer) -> None:
    reply = await api.client.get("/readyz")
    assert (reply.status_code, reply.json()["checks"]["workers"]["ok"]) == (503, False)


@pytest.mark.parametrize(("grace", "status"), [(60, 200), (0, 503)])
async def test_another_version_of_a_worker_is_visible_at_once_and_not_ready_after_the_grace(
    jobs_settings: JobsSettings, ledger: Ledger, grace: float, status: int
) -> None:
    async with running_api(jobs_settings, version_grace=grace) as api:
        version = api.services.knowledge.version
        await beat(ledger, version)
        await beat(ledger, "0123456789ab", worker="host:2")
        reply = await api.client.get("/readyz")
        figures = await metrics(api)
    versions = reply.json()["checks"]["versions"]
    assert (reply.status_code, versions["ok"], versions["blocking"]) == (status, False, status == 503)
    assert "0123456789ab" in versions["detail"]
    assert figures["bunri_workers_other_version"] == 1
    assert {name for name in figures if name.startswith("bunri_pipeline_version_info")} == {
        f'bunri_pipeline_version_info{{process="api",version="{version}"}}',
        f'bunri_pipeline_version_info{{process="worker",version="{version}"}}',
        'bunri_pipeline_version_info{process="worker",version="0123456789ab"}',
    }


async def test_a_worker_that_changes_its_version_is_still_one_worker(api: ApiServer, ledger: Ledger) -> None:
    before = WorkerBeat(worker="host:1", pipeline_version="0123456789ab", models=("local",), concurrency=5)
    after = before.model_copy(update={"pipeline_version": api.services.knowledge.version})
    said = [after, after, before]
    heart = Heartbeat(ledger, said.pop)
    await heart.beat()
    assert await ledger.fleet.workers() == [before]
    await asyncio.gather(heart.beat(), heart.beat())
    assert await ledger.fleet.workers() == [after]
    assert (await metrics(api))["bunri_workers_slots"] == 5
    await heart.depart()
    assert await ledger.fleet.workers() == []


async def test_the_client_is_told_who_uses_which_version(api: ApiServer, ledger: Ledger) -> None:
    await beat(ledger, "0123456789ab")
    async with BunriClient(str(api.client.base_url)) as client:
        shown = await client.pipeline()
    assert (shown.pipeline_version, shown.stale) == (api.services.knowledge.version, False)
    assert [worker.pipeline_version for worker in shown.workers or ()] == ["0123456789ab"]


async def test_a_refusal_of_a_worker_is_visible_and_leaves_the_api_ready(api: ApiServer, ledger: Ledger) -> None:
    refusal = Refusal(version="0123456789ab", detail="vision.md: " + "x" * 1000)
    mine = api.services.knowledge.version
    await ledger.fleet.beat(
        WorkerBeat(worker="host:1", pipeline_version=mine, models=("local",), stale=True, refusal=refusal)
    )
    reply = await api.client.get("/readyz")
    resources = reply.json()["checks"]["resources"]
    assert (reply.status_code, resources["ok"], resources["blocking"]) == (200, False, False)
    assert "0123456789ab: vision.md: " in resources["detail"]
    assert len(resources["detail"]) < 500
    figures = await metrics(api)
    for name in ("refused", "stale"):
        assert figures[f'bunri_resources_{name}{{process="worker"}}'] == 1
        assert figures[f'bunri_resources_{name}{{process="api"}}'] == 0


async def test_without_redis_the_process_is_healthy_and_not_ready() -> None:
    jobs = JobsSettings.model_validate({"redis_url": f"redis://127.0.0.1:{closed_port()}/0", "redis_timeout": 0.3})
    async with running_api(jobs) as api:
        assert (await api.client.get("/healthz")).status_code == 200
        reply = await api.client.get("/readyz")
        assert reply.status_code == 503
        assert {name: check["ok"] for name, check in reply.json()["checks"].items()} == {
            "ledger": False,
            "broker": False,
            "workers": False,
            "versions": False,
            "resources": True,
        }
        assert (await metrics(api))["bunri_ledger_up"] == 0
        assert (await api.client.get("/api/v1/pipeline")).json()["workers"] is None


async def test_readiness_never_tells_the_password_of_redis() -> None:
    url = f"redis://:hunter2@127.0.0.1:{closed_port()}/0"
    jobs = JobsSettings.model_validate({"redis_url": url, "redis_timeout": 0.3})
    async with running_api(jobs) as api:
        assert "hunter2" not in (await api.client.get("/readyz")).text


async def test_metrics_count_jobs_by_fate(api: ApiServer, ledger: Ledger) -> None:
    jobs = [new_job() for _ in range(4)]
    for job in jobs:
        await ledger.submissions.create(job)
    claims = [await ledger.claims.claim(job.job_id) for job in jobs[:3]]
    assert claims[0]
    assert claims[1]
    await ledger.claims.complete(claims[0], result())
    await ledger.claims.fail(claims[1], JobError(code="source.timeout", retryable=True, trace_id="t"), Stage.FETCH)
    await beat(ledger, "v")
    figures = await metrics(api)
    assert figures['bunri_jobs_finished_total{code="",status="completed"}'] == 1
    assert figures['bunri_jobs_finished_total{code="source.timeout",status="failed"}'] == 1
    assert figures['bunri_jobs_queued{priority="interactive"}'] == 1
    assert figures['bunri_jobs_queued{priority="bulk"}'] == 0
    assert figures["bunri_jobs_running"] == 1
    assert figures["bunri_workers_live"] == 1
    assert figures["bunri_ledger_up"] == 1


async def test_metrics_tell_which_model_is_paused_and_why(api: ApiServer, ledger: Ledger) -> None:
    rejection = CallOutcome(ModelRateLimited(retry_after=60))
    await CircuitStore(ledger).report("gpt-test", CallCounts(failed=1, rejected=3), rejection)
    figures = await metrics(api)
    paused = {name: value for name, value in figures.items() if name.startswith("bunri_model_paused{") and value}
    assert paused == {'bunri_model_paused{cause="model.rate_limited",model="gpt-test"}': 1}
    assert 0 < figures['bunri_model_pause_seconds{model="gpt-test"}'] <= 60
    assert figures['bunri_model_refused_total{model="gpt-test"}'] == 3


async def test_metrics_count_requests_by_route_and_never_by_path(api: ApiServer) -> None:
    for path in ("/api/v1/scan/one", "/api/v1/scan/two", "/nowhere/1", "/nowhere/2"):
        await api.client.get(path)
    await api.client.request("MKCOL", "/healthz")
    figures = await metrics(api)
    assert figures['bunri_http_requests_total{method="GET",route="/api/v1/scan/{job_id}",status="404"}'] == 2
    assert figures['bunri_http_requests_total{method="GET",route="unmatched",status="404"}'] == 2
    assert figures['bunri_http_requests_total{method="OTHER",route="/healthz",status="405"}'] == 1
    assert figures['bunri_http_request_seconds_count{method="GET",route="/api/v1/scan/{job_id}"}'] == 2


async def test_the_catalogue_has_every_code_in_both_languages(api: ApiServer) -> None:
    entries = (await api.client.get("/api/v1/errors")).json()
    assert [entry["code"] for entry in entries] == list(ALL_CODES)
    for entry in entries:
        assert {*entry["messages"]} == {"ko", "en"}
        for text in entry["messages"].values():
            assert text["title"]
            assert text["message"]
            assert text["advice"]


async def test_the_pipeline_shows_what_is_loaded_and_by_which_workers(api: ApiServer, ledger: Ledger) -> None:
    await beat(ledger, "0123456789ab")
    shown = (await api.client.get("/api/v1/pipeline")).json()
    assert shown["pipeline_version"] == api.services.knowledge.version
    assert shown["stale"] is False
    assert "taxonomy.yaml" in shown["fingerprints"]
    assert shown["models"] == ["local/test"]
    assert shown["refusal"] is None
    assert shown["workers"] == [
        {
            "worker": "host:1",
            "pipeline_version": "0123456789ab",
            "models": ["local/test"],
            "stale": False,
            "refusal": None,
        }
    ]


async def test_resources_not_yet_taken_are_reported_as_stale(jobs_settings: JobsSettings, tmp_path: Path) -> None:
    resources = copied_resources(tmp_path)
    pipeline = PipelineSettings.model_validate({"resources": resources, "watch_every": 60})
    async with running_api(jobs_settings, pipeline=pipeline) as api:
        before = (await api.client.get("/api/v1/pipeline")).json()
        (resources / "prompts" / "vision.md").write_text("Look again.")
        after = (await api.client.get("/api/v1/pipeline")).json()
    assert (before["stale"], after["stale"]) == (False, True)
    assert after["pipeline_version"] == before["pipeline_version"] != after["on_disk"]
