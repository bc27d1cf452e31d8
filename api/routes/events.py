"""The live view of a job: server-sent events named by stage, resumable by Last-Event-ID."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, cast

import orjson
import structlog
from fastapi import APIRouter, Header, Response
from starlette.types import Receive, Scope, Send

from api.deps import Services, ServicesDep
from api.http import direct_route, openapi
from api.http.openapi import EVENTS, problems
from api.jobs import find_job
from api.paths import API
from api.routes.jobs import operation_name
from jobs.errors import LedgerUnavailable
from jobs.feed.drafts import TextDelta
from jobs.feed.feed import Followed
from jobs.model import JobEvent, JobKind
from jobs.view import TokenView, error_of, result_of
from pipeline.types import Stage

RECONNECT_MS = 2000
"""The `retry` of a stream; at shutdown each client gets a random part of it."""

SEND_SECONDS = 30.0
"""Limit for one write. A client that takes nothing for longer is dropped; the kernel ends its connection
(`__main__.py`).
"""

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",  # a proxy that compresses would hold events back
    "X-Accel-Buffering": "no",
}

STREAM = "Events `queued`, `fetch`, `vision`, `rule`, `answer`, `reward`, `done`; ends after `done`."

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="The last `id` received: the stream goes on after it.")
]

Disconnected = asyncio.Future[None]
"""Resolves when the client disconnects."""

log = structlog.get_logger()


def event_routes(kind: JobKind) -> APIRouter:
    """The event stream of a job of this kind."""
    router = openapi.router(f"{API}/{kind}", kind.value)
    has_tokens = kind is JobKind.CHAT

    @direct_route.add(
        router,
        "GET",
        "/{job_id}/events",
        name=operation_name("events", kind),
        responses={
            200: {
                "description": STREAM + (" `token` while the answer is written; it has no id." if has_tokens else ""),
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
        after = await _last_seen(job_id, last_event_id, services)
        if job.status.is_final and not await services.ledger.submissions.events(job_id, after):
            return Response(status_code=204)
        return EventStream(partial(_chunks, job_id, after, services, drafts=has_tokens))

    return router


class EventStream(Response):
    """Streams the chunks of `chunks(disconnected)`, one write each, until they end or the client disconnects."""

    # Not Starlette's StreamingResponse: its task group makes an idle client 29.3 kB instead of 24.6, and connecting one
    # 0.73 ms of CPU instead of 0.62 (`benchmarks/sse.py` with 2000 clients, 1 December 2026).

    def __init__(self, chunks: Callable[[Disconnected], AsyncGenerator[bytes]]) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        disconnected = asyncio.ensure_future(_disconnect(receive))
        try:
            async with aclosing(self._chunks(disconnected)) as chunks:
                async for chunk in chunks:
                    async with asyncio.timeout(SEND_SECONDS):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.info("stream.cut", reason="the client takes nothing")
        except Exception:
            log.exception("stream.broke")
        finally:
            disconnected.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _chunks(
    job_id: str, after: int, services: Services, disconnected: Disconnected, *, drafts: bool
) -> AsyncGenerator[bytes]:
    """One chunk for each batch of news: a write costs the server a tenth of a millisecond."""
    yield b"retry: %d\n\n" % RECONNECT_MS
    batches = services.feed.follow_batches(job_id, after, drafts=drafts, until=disconnected)
    try:
        async with aclosing(cast("Any", batches)) as following:  # The feed declares the iterator, not the generator.
            async for batch in following:
                yield b"".join([await _encoded(job_id, news, services) for news in batch])
        if services.feed.is_closing:
            # Spread, so that not all clients reconnect at once to the API that is left.
            yield b"retry: %d\n\n" % random.randint(0, RECONNECT_MS)  # noqa: S311 - no secret
    except LedgerUnavailable as error:
        # The client reconnects with its last id, or polls.
        log.warning("stream.broke", job_id=job_id, error=str(error))


async def _encoded(job_id: str, news: Followed, services: Services) -> bytes:
    if news is None:
        return b": keepalive\n\n"
    if isinstance(news, TextDelta):
        return _token_event(job_id, news)
    data = await _done_data(news, services) if news.stage is Stage.DONE else news.data
    return b"event: %b\nid: %d\ndata: %b\n\n" % (news.stage.encode(), news.seq, data)


def _token_event(job_id: str, delta: TextDelta) -> bytes:
    """Without an id: a client that reconnects after it gets the text from its beginning."""
    return b"event: token\ndata: %b\n\n" % TokenView.of(job_id, delta).model_dump_json().encode()


async def _done_data(event: JobEvent, services: Services) -> bytes:
    """The last event's data, with the result or the error's message added: the ledger stores the event without."""
    data = orjson.loads(event.data)
    job = await services.ledger.submissions.get(data["job_id"])
    if job is None:
        return event.data
    texts = services.knowledge.texts
    views = {"error": error_of(job, texts), "result": result_of(job)}
    return orjson.dumps(
        data | {name: orjson.Fragment(view.model_dump_json()) for name, view in views.items() if view is not None}
    )


async def _last_seen(job_id: str, last_event_id: str | None, services: Services) -> int:
    """The number of the event to resume after; 0, the start, for an id that this job has not."""
    if last_event_id is None or not (last_event_id.isascii() and last_event_id.isdigit()):
        return 0
    number = int(last_event_id[:9])
    return number if number <= len(await services.ledger.submissions.events(job_id)) else 0
