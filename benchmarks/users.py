"""Users of the API, a process of its own: each submits a scan, follows it to its end, and starts again.

`python -m benchmarks.users URL PHOTO --users N` prints a line when the window begins, one when it ends, then what
became of the jobs that ended within it, as JSON. It does as little for each job as a user can.
"""

import argparse
import asyncio
import time
from dataclasses import asdict, dataclass, field
from itertools import cycle

import aiohttp
import orjson
import uvloop

from benchmarks.model_server import SCALE

RAMP = 5.0
"""Seconds over which the users arrive."""


@dataclass
class Found:
    """Seconds beyond the model's own for each job that completed in the window, and how the others ended."""

    added: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)

    def note(self, waited: float, done: dict[str, object], *, told: bool) -> None:
        """`told`: the model says in its answers how long it took; else nothing is known of that."""
        if done.get("outcome") != "completed":
            self.fail(str((done.get("error") or {"code": "?"})["code"]))  # type: ignore[index]  # JSON of ours
            return
        if not told:
            self.waited.append(waited)
            self.added.append(waited)
            return
        result = done["result"]
        seen = float(result["classification_result"]["confidence"]) * SCALE  # type: ignore[index]
        written = float(result["final_answer"]["user_answer"])  # type: ignore[index]
        self.waited.append(waited)
        self.added.append(waited - seen - written)

    def fail(self, why: str) -> None:
        self.failed[why] = self.failed.get(why, 0) + 1


class Users:
    def __init__(self, api: str, photo: str, window: tuple[float, float], *, told: bool) -> None:
        self._apis = cycle(api.split(","))
        self._told = told
        self._body = orjson.dumps({"image_url": photo})
        self._window = window
        self.found = Found()

    async def user(self, http: aiohttp.ClientSession, delay: float) -> None:
        api = next(self._apis)
        await asyncio.sleep(delay)
        while time.monotonic() < self._window[1]:
            began = time.monotonic()
            try:
                done = await self._scan(http, api)
            except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
                done, why = None, f"{type(error).__name__} {error}"[:40]
            ended = time.monotonic()
            if not self._window[0] <= ended < self._window[1]:
                continue
            if done is None:
                self.found.fail(why)
            else:
                self.found.note(ended - began, done, told=self._told)

    async def _scan(self, http: aiohttp.ClientSession, api: str) -> dict[str, object]:
        headers = {"Content-Type": "application/json"}
        async with http.post(f"{api}/api/v1/scan", data=self._body, headers=headers) as taken:
            if taken.status != 202:
                code = orjson.loads(await taken.read())["code"]
                await asyncio.sleep(1)
                raise ValueError(f"{taken.status} {code}")
            url = orjson.loads(await taken.read())["stream_url"]
        is_done = False
        async with http.get(f"{api}{url}") as stream:
            async for line in stream.content:
                if line.startswith(b"event: done"):
                    is_done = True
                elif is_done and line.startswith(b"data: "):
                    done: dict[str, object] = orjson.loads(line[6:])
                    return done
        raise ValueError("the stream ended")


async def run(options: argparse.Namespace) -> None:
    begins = time.monotonic() + options.warm_up
    users = Users(options.api, options.photo, (begins, begins + options.seconds), told=not options.untold)
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        tasks = [
            asyncio.create_task(users.user(http, RAMP * number / options.users)) for number in range(options.users)
        ]
        await asyncio.sleep(begins - time.monotonic())
        print("begins", flush=True)
        await asyncio.sleep(options.seconds)
        print("ends", flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(orjson.dumps(asdict(users.found)).decode(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("api", help="one or more URLs, comma-separated: users take turns")
    parser.add_argument("photo")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--warm-up", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--untold", action="store_true", help="the model does not say how long it took")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
