"""What one would write first, on a uvicorn set up as Bunri's own: `python -m benchmarks.bare_api PORT REDIS_URL`.

`POST /push` is a FastAPI route that reads JSON into a model and does one LPUSH. `GET /follow/NAME` is Starlette's
streaming response with nothing behind it but a queue in memory for each client, and `POST /tell/NAME` puts an event
into all of that name.
"""

import argparse
import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import redis.asyncio as redis
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from api.__main__ import config
from jobs.feed.feed import KEEPALIVE_SECONDS

QUEUE = "bare"


class Scan(BaseModel):
    image_url: str


def build(redis_url: str) -> FastAPI:
    app = FastAPI()
    client = redis.Redis.from_url(redis_url)
    followers: dict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/push", status_code=202)
    async def push(scan: Scan) -> dict[str, str]:
        await client.lpush(QUEUE, scan.image_url)
        return {"status": "queued"}

    async def lines(name: str) -> AsyncIterator[bytes]:
        inbox: asyncio.Queue[bytes] = asyncio.Queue()
        followers[name].add(inbox)
        try:
            yield b"retry: 2000\n\n"
            while True:
                try:
                    async with asyncio.timeout(KEEPALIVE_SECONDS):
                        line = await inbox.get()
                except TimeoutError:
                    line = b": keepalive\n\n"
                yield line
        finally:
            followers[name].discard(inbox)

    @app.get("/follow/{name}")
    async def follow(name: str) -> StreamingResponse:
        return StreamingResponse(lines(name), media_type="text/event-stream")

    @app.post("/tell/{name}")
    async def tell(name: str, request: Request) -> dict[str, int]:
        event = await request.body()
        for inbox in followers[name]:
            inbox.put_nowait(event)
        return {"told": len(followers[name])}

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("redis_url")
    options = parser.parse_args()
    uvicorn.Server(config(build(options.redis_url), host="127.0.0.1", port=options.port)).run()


if __name__ == "__main__":
    main()
