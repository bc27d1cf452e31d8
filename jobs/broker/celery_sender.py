"""Messages by Celery itself, for brokers other than Redis: sent by a thread of its own, never on the event loop."""

import asyncio
import queue
import threading
from contextlib import suppress
from typing import Any, NamedTuple

from celery import Celery

from jobs.broker.message import RUN_JOB
from jobs.broker.options import dead_letter_queue, is_rabbitmq, publisher_settings
from jobs.errors import QueueUnavailable
from jobs.settings import JobsSettings

MAX_BATCH = 200


class Message(NamedTuple):
    """A message for the queue of its lane; `sent` is settled with the outcome."""

    job_id: str
    lane: str
    sent: asyncio.Future[None]


class CelerySender:
    """Messages that arrive while one batch is on its way go out together in the next."""

    def __init__(self, settings: JobsSettings) -> None:
        self._settings = settings
        self._app = Celery("bunri", set_as_current=False)
        self._app.conf.update(
            publisher_settings(settings, *settings.queues),
            task_default_queue=settings.queue,
            task_ignore_result=True,
        )
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def send(self, job_id: str, lane: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._publish_forever, name="publisher", daemon=True)
            self._thread.start()
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(Message(job_id, lane, sent))
        try:
            async with asyncio.timeout(self._settings.redis_timeout):
                await sent
        except TimeoutError as error:
            raise QueueUnavailable("no answer from the broker") from error

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(self._settings.redis_timeout):
                await asyncio.to_thread(self._connect_once)
        except Exception as error:
            raise QueueUnavailable(type(error).__name__) from error

    async def close(self) -> None:
        if self._thread is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join, self._settings.redis_timeout)

    def _connect_once(self) -> None:
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=self._settings.redis_timeout)
            connection.channel()

    def _publish_forever(self) -> None:
        producer: Any = None
        while (first := self._waiting.get()) is not None:
            batch = self._batch_from(first)
            try:
                producer = self._publish(batch, producer)
            except Exception as error:  # noqa: BLE001 - whatever the transport raises, the caller must get it
                producer = None
                _settle(batch, QueueUnavailable(type(error).__name__))
            else:
                _settle(batch, None)
        _close(producer)

    def _publish(self, batch: list[Message], producer: Any) -> Any:
        """Returns the producer to use next. This one may have lost its connection since its last use: then once more.

        Never after silence: the messages may be in the queue.
        """
        if producer is not None:
            try:
                self._send(batch, producer)
            except Exception as error:
                _close(producer)
                if isinstance(error, TimeoutError):
                    raise
            else:
                return producer
        producer = self._producer()
        try:
            self._send(batch, producer)
        except BaseException:
            _close(producer)
            raise
        return producer

    def _send(self, batch: list[Message], producer: Any) -> None:
        for job_id, lane, _ in batch:
            self._app.send_task(
                RUN_JOB,
                (job_id,),
                task_id=job_id,
                queue=lane,
                producer=producer,
                retry=False,
                confirm_timeout=self._settings.redis_timeout,
            )

    def _producer(self) -> Any:
        producer = self._app.amqp.Producer(self._app.connection_for_write())
        if is_rabbitmq(self._settings):
            for lane in self._settings.queues:
                dead_letter_queue(lane)(producer.channel).declare()
        return producer

    def _batch_from(self, first: Message) -> list[Message]:
        batch = [first]
        with suppress(queue.Empty):
            while len(batch) < MAX_BATCH:
                item = self._waiting.get_nowait()
                if item is None:
                    self._waiting.put(None)
                    break
                batch.append(item)
        return batch


def _close(producer: Any) -> None:
    if producer is not None:
        with suppress(Exception):
            producer.connection.release()


def _settle(batch: list[Message], error: Exception | None) -> None:
    loop = batch[0].sent.get_loop()
    with suppress(RuntimeError):  # The loop has closed: no caller waits any more.
        loop.call_soon_threadsafe(_settle_on_loop, batch, error)


def _settle_on_loop(batch: list[Message], error: Exception | None) -> None:
    for _, _, sent in batch:
        if sent.done():
            continue
        if error is None:
            sent.set_result(None)
        else:
            sent.set_exception(error)
