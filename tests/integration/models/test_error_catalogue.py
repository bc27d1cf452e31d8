"""Every code of the catalogue, raised by the real fetcher, decoder, SDK and ledger on servers that misbehave."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from jobs.circuit import CircuitStore
from jobs.feed.drafts import DraftStore
from jobs.ledger.ledger import Ledger
from jobs.model import Job, OverBudget
from jobs.settings import JobsSettings
from pipeline.build import build_pipeline
from pipeline.errors import CATALOGUE
from pipeline.models import Gate
from pipeline.settings import RESOURCES, PipelineSettings
from pipeline.types import JobInput
from tests.support import image_server as origin_answers
from tests.support import openai_server as model_answers
from tests.support.image_server import Answer, ImageServer, image_server, redirect, reply
from tests.support.jobs import new_job
from tests.support.openai_server import openai_server
from tests.support.wait import eventually
from workers.execute.budget import Budget
from workers.execute.gate import CircuitBreaker
from workers.execute.leases import Leases
from workers.execute.runner import JobRunner
from workers.maintenance.periodic import run_periodically

SECRET = "TOPSECRET"
PAST = "X-Amz-Date=20200101T000000Z&X-Amz-Expires=60"
LIMITS: dict[str, Any] = {"fetch_read_timeout": 0.3, "fetch_max_bytes": 1_000_000, "model_timeout": 0.5}


@dataclass(frozen=True)
class World:
    """What a scenario may set up: the photo's origin, the model's server, the ledger."""

    origin: ImageServer
    model: ImageServer
    ledger: Ledger
    lease: float
    photo: bytes
    folder: Path

    async def photo_that(self, answer: Answer, query: str = "", **settings: Any) -> Job:
        """A job whose photo's origin answers so."""
        return await self.run(self.origin.on("/photo.jpg", answer) + f"?{query}&sig={SECRET}", **settings)

    async def model_that(self, answer: Answer) -> Job:
        """A job with a good photo, whose model answers so."""
        self.model.fallback = lambda _request: answer
        return await self.photo_that(reply(200, self.photo))

    async def run(self, url: str, *, deadline: float = 60.0, **settings: Any) -> Job:
        """Through to the job's end, without the pauses between its tries."""
        job_id = await self.record(url, deadline=deadline)
        async with self.scanner(**settings) as scanner:
            while not (job := await self.job(job_id)).status.is_final:
                await scanner.run(job_id)
        return job

    async def record(self, url: str = "http://127.0.0.1/", *, deadline: float = 60.0) -> str:
        job = new_job(deadline=deadline).model_copy(update={"input": JobInput(image_url=url)})
        await self.ledger.submissions.create(job)
        return job.job_id

    async def job(self, job_id: str) -> Job:
        job = await self.ledger.submissions.get(job_id)
        assert job is not None
        return job

    @asynccontextmanager
    async def scanner(self, gate: Gate | None = None, **settings: Any) -> AsyncIterator[JobRunner]:
        hosted = {"openai_api_key": "sk-test", "openai_base_url": model_answers.base_url(self.model)}
        pipeline = build_pipeline(
            PipelineSettings.model_validate(LIMITS | hosted | {"fetch_allow": "127.0.0.1"} | settings), gate
        )
        leases = Leases(self.ledger.claims, self.lease)
        renewing = asyncio.create_task(run_periodically("leases", leases.renew_interval, leases.renew_all))
        yield JobRunner(self.ledger, DraftStore(self.ledger), leases, lambda: pipeline, result_cache_ttl=0)
        renewing.cancel()
        await pipeline.close()

    def gate_without_money(self) -> Gate:
        return CircuitBreaker(CircuitStore(self.ledger), probe_seconds=30, budget=Budget(0.0, OverBudget.REFUSE))


async def no_rule(world: World) -> Job:
    """The rulebook of this run lacks the rule of the category that the model sees."""
    resources = shutil.copytree(RESOURCES, world.folder / "resources")
    (resources / "rulebook" / "glass_bottle.yaml").unlink()
    return await world.photo_that(reply(200, world.photo), resources=resources)


async def cancelled(world: World) -> Job:
    job_id = await world.record(world.origin.on("/photo.jpg", origin_answers.silence()))
    async with world.scanner(fetch_read_timeout=30) as scanner:
        running = asyncio.create_task(scanner.run(job_id))
        await eventually(lambda: _has_requests(world.origin))
        await world.ledger.submissions.cancel(job_id)
        await running  # The lost lease stops the work.
    return await world.job(job_id)


async def worker_lost(world: World) -> Job:
    """Three workers in turn take the job and are never heard of again."""
    job_id = await world.record()
    for _ in range(3):
        assert await world.ledger.claims.claim(job_id)
        await eventually(lambda: _is_reclaimed(world.ledger, job_id))
    return await world.job(job_id)


async def _has_requests(server: ImageServer) -> bool:
    return bool(server.requests)


async def _is_reclaimed(ledger: Ledger, job_id: str) -> bool:
    return job_id in await ledger.upkeep.rescue_stalled()


def image(data: bytes) -> Answer:
    return reply(200, data)


SCENARIOS: dict[str, Callable[[World], Awaitable[Job]]] = {
    "source.url_expired": lambda world: world.photo_that(reply(403), PAST),
    "source.forbidden": lambda world: world.photo_that(reply(403)),
    "source.not_found": lambda world: world.photo_that(reply(404)),
    "source.too_large": lambda world: world.photo_that(image(bytes(1_000_001))),
    "source.unsupported_media": lambda world: world.photo_that(image(b"<html>a page, not a photo</html>")),
    "source.corrupt_image": lambda world: world.photo_that(image(world.photo[:2000])),
    "source.url_unsafe": lambda world: world.photo_that(redirect("http://10.0.0.1/internal")),
    "source.timeout": lambda world: world.photo_that(origin_answers.silence()),
    "source.unreachable": lambda world: world.photo_that(reply(503)),
    "model.rate_limited": lambda world: world.model_that(model_answers.problem(429, "rate_limit_exceeded")),
    "model.timeout": lambda world: world.model_that(origin_answers.silence()),
    "model.refused": lambda world: world.model_that(model_answers.refusal()),
    "model.bad_output": lambda world: world.model_that(model_answers.completed("no JSON")),
    "model.unavailable": lambda world: world.model_that(model_answers.problem(503)),
    "model.account": lambda world: world.model_that(model_answers.problem(401, "invalid_api_key")),
    "model.budget_exhausted": lambda world: world.photo_that(image(world.photo), gate=world.gate_without_money()),
    "rules.no_match": no_rule,
    "job.deadline_exceeded": lambda world: world.photo_that(
        origin_answers.silence(), deadline=1.0, fetch_read_timeout=30
    ),
    "job.cancelled": cancelled,
    "job.worker_lost": worker_lost,
    "internal": lambda world: world.model_that(model_answers.problem(400, "unknown_parameter")),
}


@pytest.fixture
def world(ledger: Ledger, jobs_settings: JobsSettings, samples: Path, tmp_path: Path) -> Iterator[World]:
    photo = (samples / "glass-1.jpg").read_bytes()
    with image_server() as origin, openai_server() as model:
        yield World(origin, model, ledger, jobs_settings.lease, photo, tmp_path)


def test_every_code_has_a_scenario() -> None:
    assert set(SCENARIOS) == set(CATALOGUE)


@pytest.mark.parametrize("code", SCENARIOS)
async def test_the_job_ends_with_its_code(world: World, code: str) -> None:
    with capture_logs() as logs:
        job = await SCENARIOS[code](world)
    assert job.error is not None
    assert (job.error.code, job.error.retryable) == (code, CATALOGUE[code].retryable)
    assert SECRET not in repr(logs)
    events = await world.ledger.submissions.events(job.job_id)
    assert SECRET not in repr(events)


async def test_an_observation_that_no_rule_matches_is_kept_and_the_rule_has_failed(world: World) -> None:
    job = await no_rule(world)
    assert (job.model, job.usage.output_tokens) == ("gpt-5.6-terra", 100)
    events = [orjson.loads(event.data) for event in await world.ledger.submissions.events(job.job_id)]
    assert [(event["stage"], event["status"]) for event in events[-4:]] == [
        ("vision", "completed"),
        ("rule", "started"),
        ("rule", "failed"),
        ("done", "completed"),
    ]


@pytest.mark.parametrize("code", [code for code, spec in CATALOGUE.items() if spec.retryable])
async def test_a_retryable_failure_is_tried_as_often_as_its_entry_says(world: World, code: str) -> None:
    await SCENARIOS[code](world)
    asked = world.model if code.startswith("model.") else world.origin
    assert len(asked.requests) == CATALOGUE[code].max_attempts
