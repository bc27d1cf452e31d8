"""Schemathesis: whatever the description allows or forbids, the API answers as described and never with a 5xx."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import redis
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api.app import build_app
from api.settings import ApiSettings
from cli.docs import openapi
from jobs.ledger.ledger import Ledger
from jobs.model import JobError
from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings
from pipeline.types import Stage
from tests.support.jobs import new_job, result
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
)

REJECTIONS = [400, 404, 405, 406, 409, 413, 415, 422, 429]
"""What wrong data may be answered with: an over-long string can make the whole body too large."""


@pytest.fixture(scope="module")
def served(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The api on a thread of its own, for a client that blocks, and a Redis that knows no worker and no pace."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    jobs = JobsSettings.model_validate({"redis_url": redis_server.url})
    edge = ApiSettings.model_validate({"max_wait": 0.01, "classify_wait": 0.01, "chat_wait": 0.01})
    pipeline = PipelineSettings.model_validate({"upload_dir": tmp_path_factory.mktemp("uploads")})
    app = build_app(edge, jobs, pipeline)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()


@pytest.fixture(scope="module")
def description(served: str) -> schemathesis.BaseSchema:
    rejections = {"expected-statuses": REJECTIONS}
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": rejections}})
    return schemathesis.openapi.from_url(f"{served}/openapi.json", config=config)


def operations() -> list[tuple[str, str]]:
    # Without a worker /readyz is 503, as its own tests show.
    paths = json.loads(openapi())["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods if path != "/readyz"]


@pytest.fixture(scope="module")
def jobs_that_ended(served: str, redis_server: RedisServer) -> list[str]:
    """Ids of one job of each fate."""
    assert served
    return asyncio.run(_end_jobs(JobsSettings.model_validate({"redis_url": redis_server.url})))


async def _end_jobs(settings: JobsSettings) -> list[str]:
    ledger = Ledger.connect(settings)
    jobs = [new_job() for _ in range(3)]
    claims = []
    for job in jobs:
        await ledger.submissions.create(job)
        claims.append(await ledger.claims.claim(job.job_id))
    completed, failed, cancelled = claims
    assert completed
    assert failed
    assert cancelled
    await ledger.claims.complete(completed, result())
    await ledger.claims.fail(failed, JobError(code="source.timeout", retryable=True, trace_id="t"), Stage.FETCH)
    await ledger.submissions.cancel(cancelled.job_id)
    await ledger.close()
    return [job.job_id for job in jobs]


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("method", "path"), operations())
def test_the_api_keeps_to_its_description(
    description: schemathesis.BaseSchema, jobs_that_ended: list[str], method: str, path: str, mode: GenerationMode
) -> None:
    cases = description[path][method].as_strategy(generation_mode=mode)

    @given(case=cases, job_id=st.sampled_from(jobs_that_ended))
    @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def keeps(case: schemathesis.Case[Any], job_id: str) -> None:
        if mode is GenerationMode.POSITIVE:
            _make_plausible(case, job_id)
        case.call_and_validate(checks=list(CHECKS))

    with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
        keeps()  # no wrong data exists for an operation that takes none


def _make_plausible(case: schemathesis.Case[Any], job_id: str) -> None:
    """Random ids and addresses are refused, so that the answers beyond would never be seen."""
    if "job_id" in case.path_parameters:
        case.path_parameters["job_id"] = job_id
    if isinstance(case.body, dict):
        case.body["image_url"] = "https://photos.example/cup.jpg"
        if "model" in case.body:
            case.body["model"] = "local"
