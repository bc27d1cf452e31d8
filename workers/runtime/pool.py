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

STOP_POLL_INTERVAL_SECONDS = 0.05
CANCEL_GRACE_SECONDS = 2.0
"""Time for a cancelled job to put itself back into the queue."""

Callback = Callable[..., object]


class AsyncioPool(BasePool):  # type: ignore[misc]  # Celery ships no types
    """Runs at most `limit` tasks concurrently: Celery fetches no more messages than that (prefetch multiplier 1).

    The pool enters `app.lifespan(limit)` on the loop before the first task, and leaves it after the last. After a stop
    tasks may go on for `app.drain` seconds; then the pool cancels them, and they put themselves back.
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
        """Start a task without blocking. `target` is Celery's tracer, unable to await; it runs Celery's own tasks."""
        accept_callback(threading.get_native_id(), time.monotonic())
        self._loop.call_soon_threadsafe(self._start_task, target, args, callback)

    def on_stop(self) -> None:
        """Wait `app.drain` seconds for tasks, cancel the rest, and acknowledge those that ended. Blocks."""
        if not self._wait_for_tasks(within=self.app.drain):
            self._loop.call_soon_threadsafe(self._cancel_all)
            self._wait_for_tasks(within=CANCEL_GRACE_SECONDS)
        self._call(self._lifespan.__aexit__(None, None, None)).result(timeout=CANCEL_GRACE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=CANCEL_GRACE_SECONDS)

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
        """Hand the outcome to Celery's main thread, which owns kombu's connections."""
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

    def _wait_for_tasks(self, *, within: float) -> bool:
        """Acknowledge tasks as they end: Celery's hub has stopped. False: some still run after `within` seconds."""
        end = time.monotonic() + within
        while self._running and time.monotonic() < end:
            self._acknowledge()
            time.sleep(STOP_POLL_INTERVAL_SECONDS)
        self._acknowledge()
        return not self._running

    def _call(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
