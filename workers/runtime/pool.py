"""Celery's worker pool as one asyncio loop on a thread of its own (decision 0001).

Tasks are coroutine functions; all jobs in flight share the loop. Celery's main thread only receives messages and
acknowledges them; it never waits for a job.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
import uvloop
from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import Reject
from kombu.serialization import loads, prepare_accept_content

log = structlog.get_logger()

POLL = 0.05
CANCEL_GRACE = 2.0
"""Seconds for a cancelled job to put itself back."""

Callback = Callable[..., object]


class AsyncioPool(BasePool):  # type: ignore[misc]  # Celery ships no types
    """At most `limit` jobs run at once, because Celery fetches no more messages than that (prefetch multiplier 1).

    `app.lifespan(limit)` is entered on the loop before the first task runs and left after the last. `app.drain` is how
    many seconds tasks may go on after a stop; then they are cancelled, and put themselves back.
    """

    body_can_be_buffer = True
    signal_safe = False  # Stopping waits for the loop's thread.

    def on_start(self) -> None:
        self._hub: Any = None
        self._done: deque[tuple[Callback, object]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._accept = prepare_accept_content(self.app.conf.accept_content)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jobs", daemon=True)
        self._thread.start()
        self._lifespan: AbstractAsyncContextManager[None] = self.app.lifespan(self.limit)
        self._call(self._lifespan.__aenter__()).result()

    def register_with_event_loop(self, hub: Any) -> None:
        self._hub = hub

    def on_apply(
        self,
        target: Callback,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],  # noqa: ARG002 - Celery's signature
        callback: Callback,
        accept_callback: Callback,
        **_: object,
    ) -> None:
        """Start a task. `target` is Celery's own tracer, which cannot await; it serves tasks that are not ours."""
        accept_callback(threading.get_native_id(), time.monotonic())
        self._loop.call_soon_threadsafe(self._start_task, target, args, callback)

    def on_stop(self) -> None:
        """Let tasks finish for a while, cancel the rest, and acknowledge what has ended."""
        if not self._settled(within=self.app.drain):
            self._loop.call_soon_threadsafe(self._cancel_all)
            self._settled(within=CANCEL_GRACE)
        self._call(self._lifespan.__aexit__(None, None, None)).result(timeout=CANCEL_GRACE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=CANCEL_GRACE)

    on_terminate = on_stop

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return info | {"running": len(self._running)}

    # --- on the loop's thread ---

    def _start_task(self, target: Callback, args: tuple[Any, ...], callback: Callback) -> None:
        task = self._loop.create_task(self._run_task(target, args, callback))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_task(self, target: Callback, args: tuple[Any, ...], callback: Callback) -> None:
        name, _, _, body, content_type, encoding = args
        run = self.app.tasks[name].run
        if not asyncio.iscoroutinefunction(run):
            self._report(callback, await asyncio.to_thread(target, *args))
            return
        began = time.monotonic()
        try:
            positional, keywords, _ = loads(body, content_type, encoding, accept=self._accept)
            await run(*positional, **keywords)
        except BaseException as error:
            if not isinstance(error, Reject):
                log.exception("task.broke", task=name)
            outcome = (True, ExceptionInfo(), time.monotonic() - began)
        else:
            outcome = (False, None, time.monotonic() - began)
        self._report(callback, outcome)

    def _report(self, callback: Callback, outcome: object) -> None:
        """Hand the outcome to the main thread: kombu's connections belong to it."""
        self._done.append((callback, outcome))
        if self._hub is not None:
            self._hub.call_soon(self._acknowledge)

    def _cancel_all(self) -> None:
        for task in tuple(self._running):
            task.cancel()

    # --- on Celery's main thread ---

    def _acknowledge(self) -> None:
        while self._done:
            callback, outcome = self._done.popleft()
            callback(outcome)

    def _settled(self, *, within: float) -> bool:
        """Wait until no task runs, acknowledging as they end. The hub has stopped by then, so this does its work."""
        end = time.monotonic() + within
        while self._running and time.monotonic() < end:
            self._acknowledge()
            time.sleep(POLL)
        self._acknowledge()
        return not self._running

    def _call(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
