"""Intake in a real worker process: what the model is sent, what the log says, what a dead process breaks."""

import asyncio
import io
import os
import signal
from base64 import b64decode
from pathlib import Path
from typing import Any, cast

import orjson
import pillow_heif
import pytest
from PIL import Image

from jobs.broker.queue import JobQueue
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from pipeline.build import build_pipeline
from pipeline.settings import PipelineSettings
from pipeline.types import JobInput
from tests.support.image_server import ImageServer, Request, reply, silence
from tests.support.jobs import new_job
from tests.support.openai_server import late, purpose_of, well_behaved
from tests.support.wait import eventually
from tests.support.worker import ended, submit, working
from workers.execute.result_cache import JobResultCache

SECRET = b"37.5665N 126.9780E"


def photo(kind: str, size: tuple[int, int], **options: Any) -> bytes:
    """With everything in it that a phone writes and nobody else should read."""
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    exif.get_ifd(0x8825)[2] = (37.0, 33.0, 59.4)
    image, out = Image.linear_gradient("L").resize(size).convert("RGB"), io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(image).save(out, exif=exif.tobytes(), xmp=SECRET)
    else:
        image.save(out, kind, exif=exif, xmp=SECRET, icc_profile=b"profile " + SECRET, **options)
    assert SECRET in out.getvalue()
    return out.getvalue()


PHOTOS = {
    "small JPEG": photo("JPEG", (400, 300), comment=SECRET),
    "large JPEG": photo("JPEG", (2400, 1800), comment=SECRET),
    "PNG": photo("PNG", (400, 300)),
    "WebP": photo("WEBP", (400, 300)),
    "AVIF": photo("AVIF", (400, 300)),
    "HEIC": photo("HEIF", (400, 300)),
}


def shown(request: Request) -> bytes:
    """The image in a request to the model."""
    (part,) = (
        part
        for message in orjson.loads(request.body)["input"]
        for part in message["content"]
        if part["type"] == "input_image"
    )
    head, _, data = part["image_url"].partition(",")
    assert head == "data:image/jpeg;base64"
    return b64decode(data)


async def test_the_model_is_sent_pixels_and_nothing_else(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    async with working(ledger, redis_url, model, RESULT_CACHE_TTL="0"):
        for number, data in enumerate(PHOTOS.values()):
            url = origin.on(f"/{number}", reply(200, data))
            assert (await ended(feed, await submit(ledger, queue, url))).status == "completed"
    seen = [shown(request) for request in model.requests if purpose_of(request) == "vision"]
    assert len(seen) == len(PHOTOS)
    for data in seen:
        assert SECRET not in data
        assert b"Exif" not in data
        assert set(Image.open(io.BytesIO(data)).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


async def test_the_log_of_a_failed_fetch_says_which_job_where_and_what_came(
    ledger: Ledger,
    feed: Feed,
    queue: JobQueue,
    redis_url: str,
    origin: ImageServer,
    model: ImageServer,
    capfd: pytest.CaptureFixture[str],
) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    paths = {"/told.jpg": reply(403, denied), "/denied.jpg": reply(403, b"secret"), "/gone.jpg": reply(404)}
    urls = [f"{origin.on(path, answer)}?X-Sig=secret" for path, answer in paths.items()]
    urls.append(f"{origin.url('/old.jpg')}?Expires=1600000000&Signature=secret")
    log = ""

    async def all_are_logged() -> bool:  # A job has ended before its last line is written.
        nonlocal log
        log += capfd.readouterr().err
        return log.count('"job.failed"') == len(urls)

    async with working(ledger, redis_url, model):
        ids = [await submit(ledger, queue, url) for url in urls]
        for job_id in ids:
            await ended(feed, job_id)
        await eventually(all_are_logged)
    lines = [orjson.loads(line) for line in log.splitlines() if line.startswith("{")]
    failed = {line["job_id"]: (line["code"], line["detail"]) for line in lines if line["event"] == "job.failed"}
    assert [failed[job_id] for job_id in ids] == [
        ("source.url_expired", "127.0.0.1/told.jpg: upstream 403"),
        ("source.forbidden", "127.0.0.1/denied.jpg: upstream 403"),
        ("source.not_found", "127.0.0.1/gone.jpg: upstream 404"),
        ("source.url_expired", "127.0.0.1/old.jpg: its own expiry has passed"),
    ]
    assert "secret" not in log
    assert "/old.jpg" not in [request.path for request in origin.requests]


async def test_no_more_photos_than_there_is_room_for_are_in_memory(origin: ImageServer) -> None:
    there, most = 0, 0

    async def slowly(writer: asyncio.StreamWriter) -> None:
        nonlocal there, most
        there += 1
        most = max(most, there)
        await asyncio.sleep(0.05)
        there -= 1
        await reply(200, PHOTOS["small JPEG"])(writer)

    url = origin.on("/a.jpg", slowly)
    pipeline = build_pipeline(PipelineSettings.model_validate({"fetch_allow": "127.0.0.1", "fetch_concurrency": 2}))
    images = await asyncio.gather(*(pipeline.load(JobInput(image_url=url)) for _ in range(8)))
    await pipeline.close()
    assert most == 2
    assert len(images) == 8


def decoders() -> set[int]:
    """Decode processes of this user's, wherever they belong."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"pipeline.intake.image" in (folder / "cmdline").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


async def test_a_decoder_that_is_killed_costs_no_job(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda request: late(well_behaved(request), 1.0)
    url = origin.on("/a.jpg", reply(200, PHOTOS["small JPEG"]))
    async with working(ledger, redis_url, model, RESULT_CACHE_TTL="0") as worker:
        await ended(feed, await submit(ledger, queue, url))
        (pid,) = (pid for pid in decoders() if parent_of(pid) == worker.pid)
        asking = [await submit(ledger, queue, url) for _ in range(3)]
        await eventually(lambda: _has_seen(model, 4))
        os.kill(pid, signal.SIGSTOP)
        caught = await submit(ledger, queue, url)
        await eventually(lambda: _has_fetched(origin, 5))
        waiting = await submit(ledger, queue, url)
        await eventually(lambda: _has_fetched(origin, 6))
        os.kill(pid, signal.SIGKILL)
        jobs = [await ended(feed, job_id) for job_id in [*asking, caught, waiting]]
        assert worker.poll() is None
        assert pid not in decoders()
    assert [job.status for job in jobs] == ["completed"] * 5


async def test_a_job_that_waits_for_one_on_a_killed_worker_goes_on_itself(
    ledger: Ledger, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    model.fallback = lambda _request: silence()
    async with working(ledger, redis_url, model) as worker:
        held = await submit(ledger, queue, origin.on("/a.jpg", reply(200, PHOTOS["small JPEG"])))
        await eventually(lambda: _has_seen(model, 1))
        ((prefix, fingerprint),) = [
            key.decode().rsplit(":", 1) async for key in ledger.client.scan_iter("bunri:result:*")
        ]
        assert (await ledger.claims.reserve(fingerprint, "another")).holder == held
        mine = new_job()
        await ledger.submissions.create(mine)
        claim = await ledger.claims.claim(mine.job_id)
        assert claim is not None
        waiting = asyncio.create_task(JobResultCache(ledger, claim, 60).find(fingerprint))
        worker.kill()

        async def is_let_go() -> bool:
            await ledger.upkeep.rescue_stalled()
            return waiting.done()

        await eventually(is_let_go)
    assert await waiting is None
    assert await cast("Any", ledger.client.hget(f"{prefix}:{fingerprint}", "holder")) == mine.job_id.encode()


async def test_results_are_not_kept_where_that_is_switched_off(
    ledger: Ledger, feed: Feed, queue: JobQueue, redis_url: str, origin: ImageServer, model: ImageServer
) -> None:
    url = origin.on("/a.jpg", reply(200, PHOTOS["small JPEG"]))
    async with working(ledger, redis_url, model, RESULT_CACHE_TTL="0"):
        for _ in range(2):
            assert not (await ended(feed, await submit(ledger, queue, url))).cached
        assert len(model.requests) == 4
    assert [key async for key in ledger.client.scan_iter("bunri:result:*")] == []


async def _has_seen(model: ImageServer, count: int) -> bool:
    return sum(purpose_of(request) == "vision" for request in model.requests) >= count


async def _has_fetched(origin: ImageServer, count: int) -> bool:
    return len(origin.requests) >= count
