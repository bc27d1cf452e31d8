"""A whole job in the fewest steps, a process of its own: `python -m benchmarks.bare_job PHOTO MODEL`.

GET by aiohttp, one decode by Pillow, base64, two POSTs; or, with `--local`, the local model in place of the calls. No
API, queue, ledger, checks, limits or retries: what Bunri's job is measured against. Prints a line when it is warm,
waits for one, does the jobs, and prints what they took as JSON.
"""

import argparse
import asyncio
import io
import json
import sys
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable

import aiohttp
import orjson
import uvloop
from PIL import Image

from pipeline.intake.image import JPEG_QUALITY, MAX_PASSTHROUGH_BYTES, MAX_SCALE
from pipeline.knowledge.fingerprint import local_model_dir
from pipeline.knowledge.knowledge import Knowledge
from pipeline.models.local.vision import LocalVision
from pipeline.settings import PipelineSettings
from pipeline.types import Locale, SourceImage

MEASURE = 1024
"""The long side that a photo is made smaller to, as Bunri does by default."""

HEAD = (
    b'{"model":"bare","text":{"format":{"name":"vision"}},"input":[{"role":"user","content":'
    b'[{"type":"input_image","image_url":"data:image/jpeg;base64,'
)
TAIL = b'"}]}]}'
ANSWER = orjson.dumps({"model": "bare", "input": [{"role": "user", "content": [{"type": "input_text", "text": "?"}]}]})
JSON = {"Content-Type": "application/json"}


def shrink(data: bytes) -> bytes:
    """Decode a photo as cheaply as Pillow can: a small one to see that it is whole, a large one to its new size."""
    image = Image.open(io.BytesIO(data))
    is_small = max(image.size) <= MEASURE * MAX_SCALE and len(data) <= MAX_PASSTHROUGH_BYTES
    scale = 8 if is_small else next((each for each in (8, 4, 2) if max(image.size) / each >= 0.75 * MEASURE), 1)
    image.draft(None, (image.width // scale, image.height // scale))
    image.load()
    if is_small:
        return data
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def body_of(photo: bytes) -> bytes:
    return b"".join((HEAD, b64encode(photo), TAIL))


async def get(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(url) as response:
        return await response.read()


async def ask(http: aiohttp.ClientSession, url: str, body: bytes) -> object:
    async with http.post(url, data=body, headers=JSON) as response:
        return orjson.loads(await response.read())


def hosted_job(http: aiohttp.ClientSession, photo: str, model: str) -> Callable[[], Awaitable[object]]:
    async def run() -> object:
        await ask(http, model, body_of(shrink(await get(http, photo))))
        return await ask(http, model, ANSWER)

    return run


def local_job(http: aiohttp.ClientSession, photo: str) -> Callable[[], Awaitable[object]]:
    settings = PipelineSettings()
    rulebook = Knowledge.load(settings.resources).rulebook
    vision = LocalVision(local_model_dir(settings.resources), rulebook, settings.local_threshold)

    async def run() -> object:
        data = shrink(await get(http, photo))
        image = SourceImage(media_type="image/jpeg", data=data, width=1, height=1, sha256="")
        return await vision.observe(image, question="", locale=Locale.KO)

    return run


async def repeat(job: Callable[[], Awaitable[object]], jobs: int, at_once: int) -> None:
    """The jobs, so many at a time."""
    left = iter(range(jobs))

    async def work() -> None:
        for _ in left:
            await job()

    await asyncio.gather(*(work() for _ in range(min(at_once, jobs))))


async def run(options: argparse.Namespace) -> None:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        url = f"{options.model}/v1/responses"
        job = local_job(http, options.photo) if options.local else hosted_job(http, options.photo, url)
        await repeat(job, options.warm_up, options.warm_up)
        print("warm", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began, cpu = time.monotonic(), time.process_time()
        await repeat(job, options.jobs, options.at_once)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"jobs": options.jobs, "seconds": seconds, "cpu_ms": cpu * 1000 / options.jobs}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photo")
    parser.add_argument("model")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=20, help="jobs")
    parser.add_argument("--local", action="store_true")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
