"""The clients of a run: each submits one job until it is taken, follows it in one of four ways, and notes all it saw.

They speak HTTP by hand, so that what the API sent can be compared to the byte.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import httpx
from httpx_sse import SSEError, aconnect_sse

from tests.chaos.upstreams import Receiver, question

PAUSE = 0.5
LONGEST_PAUSE = 5.0
LONG_POLL = 20
GONE = {"job.not_found", "job.expired"}
FINAL = {"completed", "failed", "cancelled"}
DECODER = json.JSONDecoder()


class Mode(StrEnum):
    STREAM = "stream"
    LONG_POLL = "long_poll"
    POLL = "poll"
    WEBHOOK = "webhook"


class Submit(NamedTuple):
    """One try to submit. `status` 0: no answer. `at` in Unix seconds."""

    at: float
    seconds: float
    status: int
    code: str = ""
    has_retry_after: bool = False


class TextDelta(NamedTuple):
    """How the API says that a job ended: result and error as the bytes that it sent, or null."""

    status: str
    result: str
    error: str


class Event(NamedTuple):
    seq: int
    name: str
    data: str

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.data)
        return fields


@dataclass
class Watched:
    """All that a client saw of its job. `told` has one entry for each source that said how it ended."""

    number: int
    mode: Mode
    submits: list[Submit] = field(default_factory=list)
    job_ids: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    told: dict[str, TextDelta] = field(default_factory=dict)
    ended_at: float | None = None
    gone: str = ""
    replay: list[Event] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=dict)

    @property
    def is_accepted(self) -> bool:
        return bool(self.job_ids)

    @property
    def job_id(self) -> str:
        return next(iter(self.job_ids))

    @property
    def accepted_at(self) -> float:
        """When the client had its 202, Unix seconds."""
        return next(each.at + each.seconds for each in self.submits if each.status == 202)

    @property
    def status(self) -> str:
        return str(self.job.get("status", ""))

    @property
    def code(self) -> str:
        """Of the error that it ended with; `completed` without one."""
        error = self.job.get("error")
        return str(error["code"]) if error else self.status

    @property
    def finished_at(self) -> float:
        return float(self.job.get("finished_at") or 0)

    @property
    def seconds(self) -> float:
        """From the first try to submit to the client's knowledge of the end."""
        return (self.ended_at or float("inf")) - self.submits[0].at


class Client:
    """`secret` stands in the query of each photo's URL."""

    def __init__(
        self, http: httpx.AsyncClient, *, photos: str, hooks: str, secret: str, receiver: Receiver, fault: str
    ) -> None:
        self._http = http
        self._photos = photos
        self._hooks = hooks
        self._secret = secret
        self._receiver = receiver
        self._fault = fault

    async def run(
        self, watched: Watched, *, photo: str | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        """Submit and follow to the end. `photo` replaces the job's URL, `more` goes into the request."""
        await self.submit(watched, photo=photo, headers=headers, **more)
        if not watched.is_accepted:
            return
        match watched.mode:
            case Mode.STREAM:
                await self.follow(watched)
            case Mode.LONG_POLL:
                await self._poll(watched, f"?wait={LONG_POLL}")
            case Mode.POLL:
                await self._poll(watched, "")
            case Mode.WEBHOOK:
                await self._await_webhook(watched)

    async def submit(
        self, watched: Watched, *, photo: str | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        """As a client does that wants its job taken: after a 503, a 429 or no answer the same again, with its key."""
        number = watched.number
        body = {"image_url": photo or f"{self._photos}/photo/{number}?signature={self._secret}{number}"}
        body |= {"user_input": question(number)} | more
        if watched.mode is Mode.WEBHOOK:
            body.setdefault("callback_url", f"{self._hooks}/hook/{number}/{self._secret}{number}")
        headers = {"Idempotency-Key": f"{self._fault}-{number}"} | (headers or {})
        while not watched.is_accepted:
            answer, began = None, time.time()
            with suppress(httpx.TransportError):
                answer = await self._http.post("/api/v1/scan", json=body, headers=headers)
            seconds = time.time() - began
            if answer is None:
                watched.submits.append(Submit(began, seconds, 0))
                await asyncio.sleep(PAUSE)
                continue
            wish = answer.headers.get("retry-after", "")
            code = "" if answer.is_success else _code_of(answer)
            watched.submits.append(Submit(began, seconds, answer.status_code, code, bool(wish)))
            if answer.status_code in {200, 202}:
                watched.job_ids.add(answer.json()["job_id"])
            elif answer.status_code in {429, 503}:
                await asyncio.sleep(min(float(wish or PAUSE), LONGEST_PAUSE))
            else:
                return

    async def follow(self, watched: Watched) -> None:
        """The event stream, taken up again after the last id whenever it breaks."""
        path = f"/api/v1/scan/{watched.job_id}/events"
        while True:
            after = {"Last-Event-ID": str(watched.events[-1].seq)} if watched.events else {}
            with suppress(httpx.TransportError, SSEError):
                async with aconnect_sse(self._http, "GET", path, headers=after, timeout=40) as source:
                    if source.response.status_code == 204:
                        return
                    if source.response.status_code == 200:
                        async for message in source.aiter_sse():
                            if message.data:
                                watched.events.append(Event(int(message.id), message.event, message.data))
                        if watched.events and watched.events[-1].name == "done":
                            self._note_end(watched, "stream", told_by(watched.events[-1].data))
                            return
                    else:
                        await source.response.aread()
                        if (code := _code_of(source.response)) in GONE:
                            self._note_gone(watched, code)
                            return
            await asyncio.sleep(PAUSE)

    async def look_back(self, watched: Watched) -> None:
        """After all has ended: the job, its result and its events, as anybody may read them now."""
        path = f"/api/v1/scan/{watched.job_id}"
        answer = await self._http.get(path)
        if answer.status_code != 200:
            watched.gone = _code_of(answer)
            return
        watched.job = answer.json()
        if watched.status in FINAL:
            watched.told["job"] = told_by(answer.text)
            watched.told["result"] = told_by((await self._http.get(f"{path}/result")).text)
            watched.replay = [event async for event in self._replayed(path)]
        for body in self._receiver.bodies_of(watched.number):
            watched.told[f"webhook {len(watched.told)}"] = told_by(body)

    async def _replayed(self, path: str) -> Any:
        async with aconnect_sse(self._http, "GET", f"{path}/events", timeout=40) as source:
            async for message in source.aiter_sse():
                if message.data:
                    yield Event(int(message.id), message.event, message.data)

    async def _poll(self, watched: Watched, wait: str) -> None:
        while True:
            with suppress(httpx.TransportError):
                answer = await self._http.get(f"/api/v1/scan/{watched.job_id}{wait}", timeout=LONG_POLL + 10)
                if answer.status_code == 200 and answer.json()["status"] in FINAL:
                    self._note_end(watched, watched.mode, told_by(answer.text))
                    return
                if answer.is_error and _code_of(answer) in GONE:
                    self._note_gone(watched, _code_of(answer))
                    return
            await asyncio.sleep(PAUSE)

    async def _await_webhook(self, watched: Watched) -> None:
        """Its end is told by the first delivery; one that never comes is the oracle's to find."""
        body = await self._receiver.first_body(watched.number)
        self._note_end(watched, "webhook", told_by(body))

    def _note_gone(self, watched: Watched, code: str) -> None:
        watched.gone, watched.ended_at = code, time.time()

    def _note_end(self, watched: Watched, source: str, told: TextDelta) -> None:
        watched.ended_at = time.time()
        watched.told[source] = told


def told_by(text: str) -> TextDelta:
    """From any of the API's bodies: event, job, result or webhook."""
    fields = dict(_fields_of(text))
    if "data" in fields:  # a webhook
        return told_by(fields["data"])
    result = fields.get("result", fields.get("pipeline_result", "null"))
    status = fields.get("outcome", fields.get("status", "")).strip('"')
    return TextDelta(status, result, fields.get("error", "null"))


def _fields_of(text: str) -> Iterator[tuple[str, str]]:
    """The members of a JSON object, each value as the text that it is."""
    at = text.index("{") + 1
    while text[at] != "}":
        at += text[at] == ","
        name, at = DECODER.raw_decode(text, at)
        at += 1  # the colon
        _, end = DECODER.raw_decode(text, at)
        yield name, text[at:end]
        at = end


def _code_of(answer: httpx.Response) -> str:
    with suppress(ValueError):
        return str(answer.json().get("code", ""))
    return ""
