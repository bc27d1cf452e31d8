"""How much later than the model's own first token a client of a streamed chat has it: `python -m benchmarks.chat`.

Starts the stack of `bunri demo`, asks one question after the other and follows each by server-sent events. The model is
a stand-in that writes a token each 20 ms; it runs in this process, so that both moments are of one clock.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from cli.stack.stack import StackOptions, running_stack
from tests.support.image_server import Answer, Request
from tests.support.openai_server import base_url, openai_server, purpose_of, streamed, well_behaved

WARM_UP = 5
QUESTIONS = 60
TOKENS = ["낱말 "] * 30
PAUSE = 0.02


class Clock:
    """A model that remembers when it began to write."""

    began = 0.0

    def __call__(self, request: Request) -> Answer:
        return streamed(self._tokens(), pause=PAUSE) if purpose_of(request) == "chat" else well_behaved(request)

    def _tokens(self) -> list[str]:
        self.began = time.perf_counter()
        return TOKENS


async def ask(client: httpx.AsyncClient, clock: Clock) -> tuple[float, float]:
    """Seconds from the model's first token to the client's, and from its last one to the end of the job."""
    taken = await client.post("/api/v1/chat/messages", json={"message": "유리병"}, headers={"Prefer": "respond-async"})
    first = 0.0
    async with client.stream("GET", taken.json()["stream_url"]) as stream:
        async for line in stream.aiter_lines():
            if line == "event: token" and not first:
                first = time.perf_counter()
    return first - clock.began, time.perf_counter() - clock.began - len(TOKENS) * PAUSE


async def measure() -> list[tuple[float, float]]:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, openai_server(fallback=clock) as model:
        env = {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": base_url(model)}
        options = StackOptions(Path(folder), with_flower=False, env=env)
        async with (
            running_stack(options) as stack,
            httpx.AsyncClient(base_url=stack.api_url, timeout=60, trust_env=False) as client,
        ):
            return [await ask(client, clock) for _ in range(WARM_UP + QUESTIONS)][WARM_UP:]


def main() -> None:
    measured = asyncio.run(measure())
    print(f"{QUESTIONS} questions, one at a time, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    figures = {}
    for name, seconds in zip(("first token", "end"), zip(*measured, strict=True), strict=True):
        median, p95 = statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=20)[-1] * 1000
        figures[name] = {"median_ms": round(median, 1), "p95_ms": round(p95, 1)}
        print(f"{name:<16} after the model's own: median {median:6.1f} ms, p95 {p95:6.1f} ms")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
