"""What the workers call: a photo origin, a model and a webhook receiver, which tell jobs apart and wait on demand.

A job's number is in its photo's path, in the question that both model calls carry, and in its callback's path.
"""

import asyncio
import random
import re
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

from tests.support import openai_server
from tests.support.image_server import Answer, ImageServer, Request, reply
from tests.support.wait import eventually

LATENCY = 0.25
"""Seconds of one model call that nobody holds. Ten jobs a second keep five calls in flight."""

IN_PATH = re.compile(r"/(?:photo|hook)/(\d+)")
IN_QUESTION = re.compile(rb"chaos job (\d+)")
ESTABLISHED = 1

Misbehaviour = Callable[[], Answer]


class Outcome(StrEnum):
    """What a model call came to. `good` was paid for and its result was received."""

    OPEN = "open"
    GOOD = "good"
    BAD = "bad"
    GONE = "gone"


@dataclass
class Call:
    """One request. Times are Unix seconds; `ended` None: not answered yet."""

    job: int
    purpose: str
    began: float
    ended: float | None = None
    outcome: Outcome = Outcome.OPEN


@dataclass(eq=False)
class Hold:
    """A request of one job that waits before it is answered."""

    caught: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self.released.set()


@dataclass
class Upstream(ImageServer):
    """A server with holds and misbehaviours by job and purpose."""

    calls: list[Call] = field(default_factory=list)
    latency: float = 0.0
    """Seconds before an answer, on average; how many for a job and purpose, the seed says."""
    seed: int = 1
    storm: Misbehaviour | None = None
    """While set, the answer to every request."""
    _holds: dict[tuple[int, str], Hold] = field(default_factory=dict)
    _plans: dict[tuple[int, str], list[Misbehaviour]] = field(default_factory=lambda: defaultdict(list))
    _always: dict[tuple[int, str], Misbehaviour] = field(default_factory=dict)

    def hold(self, job: int, purpose: str = "") -> Hold:
        """Catch the next request of this job for this purpose. It is answered when the hold is released."""
        hold = self._holds[job, purpose] = Hold()
        return hold

    def misbehave(self, job: int, answer: Answer, purpose: str = "", *, times: int | None = None) -> None:
        """Answer this job's requests so, `times` of them or all."""
        if times is None:
            self._always[job, purpose] = lambda: answer
        else:
            self._plans[job, purpose] += [lambda: answer] * times

    def calls_of(self, job: int, purpose: str | None = None) -> list[Call]:
        return [call for call in self.calls if call.job == job and purpose in {None, call.purpose}]

    def counts(self) -> Counter[int]:
        return Counter(call.job for call in self.calls)

    def answer(self, request: Request) -> Answer:
        """ImageServer's `fallback`."""
        job = number_of(request)
        purpose = self.purpose_of(request)
        call = Call(job, purpose, time.time())
        self.calls.append(call)

        async def answer(writer: asyncio.StreamWriter) -> None:
            if hold := self._holds.pop((job, purpose), None):
                hold.caught.set()
                await hold.released.wait()
            wrong = self._misbehaviour(job, purpose)
            if self.latency:
                chance = random.Random(f"{self.seed} {job} {purpose}").uniform(0.5, 1.5)
                await asyncio.sleep(self.latency * chance)
            call.outcome = Outcome.BAD if wrong else Outcome.GONE if is_gone(writer) else Outcome.GOOD
            call.ended = None if wrong else time.time()
            try:
                await (wrong() if wrong else self.well_behaved(request, job))(writer)
            finally:
                call.ended = time.time()

        return answer

    def purpose_of(self, _request: Request) -> str:
        return ""

    def well_behaved(self, request: Request, job: int) -> Answer:
        raise NotImplementedError

    def _misbehaviour(self, job: int, purpose: str) -> Misbehaviour | None:
        planned = self._plans.get((job, purpose))
        if planned:
            return planned.pop(0)
        return self._always.get((job, purpose)) or self.storm


@dataclass
class Origin(Upstream):
    """Gives every job the same small photo."""

    photo: bytes = b""

    def well_behaved(self, _request: Request, _job: int) -> Answer:
        return reply(200, self.photo, Content_Type="image/jpeg")


@dataclass
class Model(Upstream):
    """Names the job in its answer, so that results cannot be mixed up unnoticed."""

    def purpose_of(self, request: Request) -> str:
        return openai_server.purpose_of(request)

    def well_behaved(self, request: Request, job: int) -> Answer:
        if self.purpose_of(request) == "vision":
            return openai_server.completed(openai_server.SEEN)
        return openai_server.completed(openai_server.WRITTEN | {"user_answer": mark(job)})


@dataclass
class Receiver(Upstream):
    """Takes webhooks, and keeps what it was sent."""

    def well_behaved(self, _request: Request, _job: int) -> Answer:
        return reply(204)

    async def first_body(self, job: int) -> str:
        """Waits for ever for one that was taken."""
        await eventually(lambda: self._has_delivered(job), within=float("inf"), every=0.1)
        return self.bodies_of(job)[0]

    async def _has_delivered(self, job: int) -> bool:
        return any(call.outcome is Outcome.GOOD for call in self.calls_of(job))

    def bodies_of(self, job: int) -> list[str]:
        return [request.body.decode() for request in self.requests if number_of(request) == job]


def question(job: int) -> str:
    """What a client asks, by which the model knows the job."""
    return f"chaos job {job}"


def mark(job: int) -> str:
    """What the answer of this job says."""
    return f"This is the answer to job {job}."


def number_of(request: Request) -> int:
    """The job that a request is for; -1 when it says none."""
    found = IN_PATH.match(request.target) or IN_QUESTION.search(request.body)
    return int(found[1]) if found else -1


def is_gone(writer: asyncio.StreamWriter) -> bool:
    """Whether the client has closed its end: an answer would reach nobody."""
    if writer.is_closing():
        return True
    raw: socket.socket = writer.get_extra_info("socket")
    return raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED


@asynccontextmanager
async def serving(upstream: Upstream) -> AsyncIterator[None]:
    """On the caller's loop, on a port of its own."""
    upstream.fallback = upstream.answer
    handlers: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(handler := asyncio.current_task())
        try:
            with suppress(asyncio.CancelledError):  # The run is over.
                await upstream.serve(reader, writer)
        finally:
            writer.close()
            handlers.discard(handler)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        open_now = [handler for handler in handlers if handler is not None]
        for handler in open_now:
            handler.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)
