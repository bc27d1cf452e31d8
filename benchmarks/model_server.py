"""The model and the origin of photos for benchmarks, a process of its own: `python -m benchmarks.model_server`.

Answers like the Responses API after a time drawn from a lognormal distribution, and says in its answer how long that
was: the vision's confidence is its seconds divided by `SCALE`, the answer's text its seconds. A question in words is
said to be about no waste, so that its job needs no second call. It reads no more of a request than it must.
`GET /stats` counts.
"""

import argparse
import asyncio
import math
import random
import re
import sys
from collections import Counter

import orjson
import uvloop
from aiohttp import web

from tests.support.openai_server import SEEN, WRITTEN, response_body

SCALE = 100.0
"""Longest time that can be told."""

MARKER = b"@seconds@"
PURPOSE = re.compile(rb'"name":"(vision|question)"')
PURPOSE_HEADER = "X-Purpose"
"""Says it where the body has it at some other place."""

P99 = 2.326
"""Standard deviations."""


def lognormal(median: float, p99: float) -> tuple[float, float]:
    """Its mu and sigma; a median of 0 is no time at all."""
    return (math.log(median), math.log(p99 / median) / P99) if median else (-math.inf, 0.0)


class Model:
    def __init__(self, times: dict[str, tuple[float, float]], photo: bytes, at_once: int) -> None:
        self._times = {purpose: lognormal(*each) for purpose, each in times.items()}
        self._photo = photo
        self._at_once = at_once
        self._random = random.Random(7)  # noqa: S311 - the same times in each run
        self._counts: Counter[str] = Counter()
        marker = MARKER.decode()
        self._bodies = {
            "vision": self._split(SEEN | {"confidence": marker}),
            "answer": self._split(WRITTEN | {"user_answer": marker}),
            "question": self._split({"is_about_waste": False, "things": []}),
        }

    @staticmethod
    def _split(output: dict[str, object]) -> tuple[bytes, bytes]:
        text = orjson.dumps(output).decode()
        if isinstance(output.get("confidence"), str):
            text = text.replace(f'"{MARKER.decode()}"', MARKER.decode())
        body = orjson.dumps(response_body("completed", [{"type": "output_text", "text": text, "annotations": []}]))
        head, _, tail = body.partition(MARKER if MARKER in body else b"resp_1")  # Its id, where nothing else can tell.
        return head, tail

    async def respond(self, request: web.Request) -> web.Response:
        body = await request.read()
        named = PURPOSE.search(body, 0, 2000)
        purpose = named[1].decode() if named else request.headers.get(PURPOSE_HEADER, "answer")
        self._counts[purpose] += 1
        mu, sigma = self._times[purpose]
        seconds = min(self._random.lognormvariate(mu, sigma), SCALE) if mu > -math.inf else 0.0
        if self._counts[purpose] <= self._at_once:
            seconds = 0.0
        await asyncio.sleep(seconds)
        told = seconds / SCALE if purpose == "vision" else seconds
        head, tail = self._bodies[purpose]
        return web.Response(body=b"%b%.6f%b" % (head, told, tail), content_type="application/json")

    async def photo(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._photo, content_type="image/jpeg")

    async def stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self._counts)


async def serve(options: argparse.Namespace) -> None:
    times = {purpose: tuple(getattr(options, purpose)) for purpose in ("vision", "answer", "question")}
    with open(options.photo, "rb") as file:  # noqa: ASYNC230, PTH123 - before anything is served
        model = Model(times, file.read(), options.at_once)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes(
        [
            web.post("/v1/responses", model.respond),
            web.get("/photo.jpg", model.photo),
            web.get("/stats", model.stats),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    port = runner.addresses[0][1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)  # Ends with whoever started it.


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photo", help="the file served as /photo.jpg")
    parser.add_argument("--vision", type=float, nargs=2, default=(4.0, 9.0), help="seconds: median and p99")
    parser.add_argument("--answer", type=float, nargs=2, default=(3.0, 7.0))
    parser.add_argument("--question", type=float, nargs=2, default=(2.0, 2.0))
    parser.add_argument("--at-once", type=int, default=0, help="the first so many calls of each kind take no time")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
