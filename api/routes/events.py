"""The live view of a job: server-sent events named by stage, resumable by Last-Event-ID."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, cast

import orjson
import structlog
from fastapi import APIRouter, Header, Response
from starlette.types import Message, Receive, Scope, Send

from api.deps import Services, ServicesDep
from api.http import direct_route
from api.http.openapi import EVENTS, problems
from api.jobs import find_job
from api.routes.jobs import operation
from api.schemas import API
from jobs.drafts import TextDelta
from jobs.errors import LedgerUnavailable
from jobs.feed import Followed
from jobs.model import JobEvent, JobKind
from jobs.view import TokenView, error_of, result_of
from pipeline.types import Stage

RECONNECT_MS = 2000

SEND_SECONDS = 30.0
"""A client that takes nothing for so long is no longer followed for; the kernel ends its connection (`__main__.py`)."""

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",  # a proxy that compresses would hold events back
    "X-Accel-Buffering": "no",
}

STREAM = "Events `queued`, `fetch`, `vision`, `rule`, `answer`, `reward`, `done`; ends after `done`."

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="The last `id` received: the stream goes on after it.")
]

Gone = asyncio.Future[None]
log = structlog.get_logger()


def event_routes(kind: JobKind) -> APIRouter:
    """To follow a job of this kind."""
    router = direct_route.router(f"{API}/{kind}", kind.value)
    tells = kind is JobKind.CHAT

    @router.get(
        "/{job_id}/events",
        name=operation("events", kind),
        responses={
            200: {
                "description": STREAM + (" `token` while the answer is written; it has no id." if tells else ""),
                "content": {"text/event-stream": EVENTS[kind]},
            },
            204: {"description": "The job has ended and this client has seen its last event: do not reconnect"},
            **problems(404, 410, 503),
        },
        response_class=Response,
    )
    async def events(job_id: str, services: ServicesDep, last_event_id: LastEventId = None) -> Response:
        """Follow the job. `done` is always `completed`; its `outcome` says how it ended, with `result` or `error`."""
        job = await find_job(job_id, kind, services)
        after = await _place(job_id, last_event_id, services)
        if job.status.is_final and not await services.ledger.submissions.events(job_id, after):
            return Response(status_code=204)
        return EventStream(partial(_lines, job_id, after, services, drafts=tells))

    return router


class EventStream(Response):
    """Streams `lines(gone)`: `gone` resolves when the client disconnects.

    Lighter than a StreamingResponse.
    """

    def __init__(self, lines: Callable[[Gone], AsyncIterator[bytes]]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.ensure_future(_disconnect(receive))

        try:
            async with aclosing(cast("Any", self._lines(gone))) as lines:  # an async generator
                async for line in lines:
                    async with asyncio.timeout(SEND_SECONDS):
                        await send(_piece(line))
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.info("stream.cut", reason="the client takes nothing")
        except Exception:
            log.exception("stream.broke")
        finally:
            gone.cancel()


def _piece(line: bytes) -> Message:
    return {"type": "http.response.body", "body": line, "more_body": True}


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lines(job_id: str, after: int, services: Services, gone: Gone, *, drafts: bool) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % RECONNECT_MS
    try:
        following = cast("Any", services.feed.follow_batches(job_id, after, drafts=drafts, until=gone))
        async with aclosing(following):
            async for together in following:  # One write for all: each costs the server a tenth of a millisecond.
                yield b"".join([await _line(job_id, news, services) for news in together])
        if services.feed.is_closing:
            # Spread, so that not all come at once to the API that is left.
            yield b"retry: %d\n\n" % random.randint(0, RECONNECT_MS)  # noqa: S311 - no secret
    except LedgerUnavailable as error:
        # The client comes back with its last id, or polls.
        log.warning("stream.broke", job_id=job_id, error=str(error))


async def _line(job_id: str, news: Followed, services: Services) -> bytes:
    if news is None:
        return b": keepalive\n\n"
    if isinstance(news, TextDelta):
        return _told(job_id, news)
    return _event(news, await _done(news, services) if news.stage is Stage.DONE else news.data)


def _event(event: JobEvent, data: bytes) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (event.stage.encode(), event.seq, data)


def _told(job_id: str, told: TextDelta) -> bytes:
    """Without an id: a client that comes back after it gets the text from its beginning."""
    return b"event: token\ndata: %b\n\n" % TokenView.of(job_id, told).model_dump_json().encode()


async def _done(event: JobEvent, services: Services) -> bytes:
    """The last event with what the ledger leaves out of it: the result, or the error's message."""
    data = orjson.loads(event.data)
    job = await services.ledger.submissions.get(data["job_id"])
    if job is None:
        return event.data
    texts = services.knowledge.texts
    views = {"error": error_of(job, texts), "result": result_of(job)}
    return orjson.dumps(
        data | {name: orjson.Fragment(view.model_dump_json()) for name, view in views.items() if view is not None}
    )


async def _place(job_id: str, last_event_id: str | None, services: Services) -> int:
    """The event to go on after. An id that is none of this job's means from the start."""
    if last_event_id is None or not (last_event_id.isascii() and last_event_id.isdigit()):
        return 0
    asked = int(last_event_id[:9])
    return asked if asked <= len(await services.ledger.submissions.events(job_id)) else 0
