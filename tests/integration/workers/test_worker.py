"""A real worker process: its jobs come over a real Redis, from a real origin, through a real SDK."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from jobs.broker.queue import JobQueue
from jobs.errors import LedgerUnavailable
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.model import Job
from jobs.redis.keys import OUTBOX
from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings
from pipeline.storage import Channel, LocalStore, new_key
from pipeline.types import AnswerForm, JobInput
from tests.support import image_server as origin_answers
from tests.support.image_server import ImageServer
from tests.support.jobs import new_job
from tests.support.openai_server import purpose_of, streamed, well_behaved
from tests.support.redis_server import start_redis
from tests.support.wait import eventually
from tests.support.worker import PHOTO, ended, submit, working


async def test_a_job_in_flight_when_its_worker_stops_is_finished_by_the_next(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda request: (
        origin_answers.silence() if purpose_of(request) == "answer" else well_behaved(request)
    )
    async with working(ledger, redis_url, model) as first:
        job_id = await submit(ledger, queue, origin.url(PHOTO))
        await eventually(lambda: _has_asked(model, "answer"))
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=20) == 0
        assert await ledger.fleet.workers() == []
    model.fallback = well_behaved
    async with working(ledger, redis_url, model):
        job = await ended(feed, job_id)
    assert (job.status, job.attempts) == ("completed", 2)
    assert Counter(purpose_of(request) for request in model.requests) == {"vision": 1, "answer": 2}


async def test_a_job_of_a_killed_worker_is_finished_by_the_next(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda _request: origin_answers.silence()
    async with working(ledger, redis_url, model) as first:
        job_id = await submit(ledger, queue, origin.url(PHOTO))
        await eventually(lambda: _has_asked(model, "vision"))
        first.kill()
        first.wait()
    model.fallback = well_behaved
    async with working(ledger, redis_url, model):
        job = await ended(feed, job_id)
    assert (job.status, job.attempts) == ("completed", 2)


async def test_messages_that_a_killed_worker_took_with_it_are_sent_again(
    ledger: Ledger, feed: Feed, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    """As the broker's own loss (docs/libraries.md, C1): the message is gone, and no worker ever claimed the job."""
    job = new_job().model_copy(update={"input": JobInput(image_url=origin.url(PHOTO))})
    await ledger.submissions.create(job)
    await ledger.client.zadd(OUTBOX, {job.job_id: 1.0})  # its time has come
    async with working(ledger, redis_url, model):
        assert (await ended(feed, job.job_id)).status == "completed"


async def test_a_busy_worker_outlives_a_restart_of_redis(
    tmp_path: Path, origin: ImageServer, model: ImageServer
) -> None:
    server = start_redis(tmp_path)
    settings = JobsSettings.model_validate({"redis_url": server.url, "lease": 3.0})
    ledger, queue = Ledger.connect(settings), JobQueue.connect(settings)
    model.fallback = lambda _request: origin_answers.silence()
    async with working(ledger, server.url, model, PIPELINE_MODEL_TIMEOUT="3") as process:
        ids = [await submit(ledger, queue, origin.url(PHOTO), user_input=str(n)) for n in range(4)]
        await eventually(lambda: _have_asked(model, 4))
        server.process.terminate()  # It writes its file to the end.
        server.process.wait()
        server.restart()
        model.fallback = well_behaved
        await eventually(lambda: _all_ended(ledger, ids), within=60)
        assert process.poll() is None
    assert [(await _job(ledger, job_id)).status for job_id in ids] == ["completed"] * 4
    await queue.close()
    await ledger.close()
    server.stop()


async def test_a_worker_outlives_a_redis_that_takes_no_writes_for_a_while(
    tmp_path: Path, origin: ImageServer, model: ImageServer
) -> None:
    """Its disk is full, or it has become a replica: the worker's read of the queue is answered with an error."""
    server = start_redis(tmp_path)
    settings = JobsSettings.model_validate({"redis_url": server.url})
    ledger, queue = Ledger.connect(settings), JobQueue.connect(settings)
    async with working(ledger, server.url, model) as process:
        await ledger.client.replicaof("127.0.0.1", 1)
        await eventually(lambda: _has_come_back(ledger), within=60)
        await ledger.client.replicaof("NO", "ONE")
        job_id = await submit(ledger, queue, origin.url(PHOTO))
        await eventually(lambda: _all_ended(ledger, [job_id]), within=60)
        assert process.poll() is None
    await queue.close()
    await ledger.close()
    server.stop()


async def _has_come_back(ledger: Ledger) -> bool:
    """Whether a worker has announced itself at the queue again, and was refused twice."""
    stats: Any = await ledger.client.info("commandstats")
    return int(stats.get("cmdstat_sadd", {}).get("rejected_calls", 0)) >= 2


async def _have_asked(model: ImageServer, count: int) -> bool:
    return len(model.requests) >= count


async def _all_ended(ledger: Ledger, ids: list[str]) -> bool:
    try:
        return all([(await _job(ledger, job_id)).status.is_final for job_id in ids])
    except LedgerUnavailable:
        return False


async def _job(ledger: Ledger, job_id: str) -> Job:
    job = await ledger.submissions.get(job_id)
    assert job is not None
    return job


async def test_a_chat_that_is_cancelled_while_it_is_written_holds_its_slot_no_longer(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, model: ImageServer
) -> None:
    """Its draft hears of it first, long before the lease is renewed."""
    chat = JobInput(user_input="유리병", form=AnswerForm.PROSE)
    async with working(ledger, redis_url, model, concurrency=1, WORKERS_LEASE="90"):
        model.fallback = lambda request: (
            streamed(["낱말 "] * 500, pause=0.1) if purpose_of(request) == "chat" else well_behaved(request)
        )
        job_id, after = [await new_chat(ledger, queue, chat) for _ in range(2)]
        await eventually(lambda: _has_asked(model, "chat"))
        model.fallback = well_behaved
        await ledger.submissions.cancel(job_id)
        assert (await ended(feed, after, within=10)).status == "completed"


async def new_chat(ledger: Ledger, queue: JobQueue, chat: JobInput) -> str:
    job = new_job().model_copy(update={"input": chat})
    await ledger.submissions.create(job)
    await queue.enqueue(job.job_id)
    return job.job_id


async def test_an_upload_is_read_by_its_key_and_forgotten_after_its_time(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, model: ImageServer, samples: Path, tmp_path: Path
) -> None:
    store = LocalStore(PipelineSettings.model_validate({"upload_dir": tmp_path}))
    fresh, old = new_key(Channel.SCAN, "image/jpeg"), new_key(Channel.SCAN, "image/jpeg")
    store.path_of(fresh).parent.mkdir(parents=True)
    for key in (fresh, old):
        store.path_of(key).write_bytes((samples / "glass-1.jpg").read_bytes())
    yesterday = time.time() - 86_400
    os.utime(store.path_of(old), (yesterday, yesterday))
    async with working(ledger, redis_url, model, PIPELINE_UPLOAD_DIR=str(tmp_path), UPLOAD_TTL="3600"):
        read = await ended(feed, await submit(ledger, queue, "", image_key=fresh))
        await eventually(lambda: _is_gone(store.path_of(old)))
        gone = await ended(feed, await submit(ledger, queue, "", image_key=old))
    assert read.status == "completed"
    assert gone.error is not None
    assert gone.error.code == "source.not_found"


async def test_variables_that_only_celerys_command_line_knows_change_nothing(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, model: ImageServer, origin: ImageServer
) -> None:
    async with working(ledger, redis_url, model, APP="another.application", LOADER="another.loader"):
        job = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
    assert job.status == "completed"


async def _is_gone(path: Path) -> bool:
    return not path.exists()  # noqa: ASYNC240 - it is one stat


async def _has_asked(model: ImageServer, purpose: str) -> bool:
    return any(purpose_of(request) == purpose for request in model.requests)
