"""Requests to one URL, from a process of its own: `python -m benchmarks.hits URL`.

Prints a line when it is ready, waits for one, asks for so many seconds on so many connections, and prints what came
back as JSON. With `--pace` it asks so often a second on one connection, whether or not the answer before has come.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from uuid import uuid4

import aiohttp
import uvloop


@dataclass
class Found:
    """Seconds that each answer took, and how many there were of each status other than 2xx."""

    seconds: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    lasted: float = 0.0


class Hits:
    def __init__(self, http: aiohttp.ClientSession, url: str, body: bytes | None) -> None:
        self._http = http
        self._url = url
        self._body = body
        self.found = Found()

    async def one(self) -> None:
        began = time.perf_counter()
        try:
            status = await self._ask()
        except (aiohttp.ClientError, OSError) as error:
            status = type(error).__name__
        if status.startswith("2"):
            self.found.seconds.append(time.perf_counter() - began)
        else:
            self.found.failed[status] = self.found.failed.get(status, 0) + 1

    async def again_and_again(self, until: float) -> None:
        while time.perf_counter() < until:
            await self.one()

    async def at_pace(self, a_second: float, until: float) -> None:
        asking = set()
        due = time.perf_counter()
        while due < until:
            await asyncio.sleep(due - time.perf_counter())
            asking.add(asyncio.create_task(self.one()))
            due += 1 / a_second
        await asyncio.gather(*asking)

    async def _ask(self) -> str:
        if self._body is None:
            async with self._http.get(self._url) as response:
                await response.read()
                return str(response.status)
        # A key of its own, as a careful client sends one with each new job.
        headers = {"Content-Type": "application/json", "Idempotency-Key": uuid4().hex}
        async with self._http.post(self._url, data=self._body, headers=headers) as response:
            await response.read()
            return str(response.status)


async def run(options: argparse.Namespace) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        hits = Hits(http, options.url, options.body.encode() if options.body else None)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.perf_counter()
        until = began + options.seconds
        if options.pace:
            await hits.at_pace(options.pace, until)
        else:
            await asyncio.gather(*(hits.again_and_again(until) for _ in range(options.connections)))
        hits.found.lasted = time.perf_counter() - began
    print(json.dumps(asdict(hits.found)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--body", help="POST this JSON; without it, GET")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--pace", type=float, default=0.0)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
