"""The way into the queue: task name + job id, sent by a thread of its own, never on the event loop.

A publish has three outcomes: sent, refused, unknown (facts.md, Celery 3). So a failure here never undoes a job:
the ledger's outbox still lists it, and the sweep sends it again under the same id.
"""

import asyncio
import queue
import threading
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple, Self

import uuid_utils.compat
from celery import Celery

from workers.jobs.model import Priority
from workers.jobs.settings import JobsSettings
from workers.jobs.transport import dead_letter_queue, is_rabbitmq, publisher_settings

RUN_JOB = "bunri.run_job"
LARGEST_BATCH = 200


class QueueUnavailable(Exception):
    """The broker did not take the message in time. It may have it all the same."""


class Message(NamedTuple):
    """On its way to the queue of its lane; `sent` hears of it."""

    job_id: str
    lane: str
    sent: asyncio.Future[None]


def new_job_id() -> str:
    """A UUIDv7: sortable, and it says when it was made."""
    return str(uuid_utils.compat.uuid7())


def job_born_at(job_id: str) -> float | None:
    """Unix seconds from a job id of ours, None for anything else."""
    try:
        uuid = uuid_utils.compat.UUID(job_id)
    except ValueError:
        return None
    version_of_ours = 7
    return (uuid.int >> 80) / 1000 if uuid.version == version_of_ours and str(uuid) == job_id else None


class JobQueue:
    """One per process. Messages that arrive while one batch is on its way go out together in the next."""

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

    @classmethod
    def connect(cls, settings: JobsSettings) -> Self:
        return cls(settings)

    async def enqueue(self, job_id: str, priority: Priority = Priority.INTERACTIVE) -> None:
        """Send the job's message to its lane. Raises QueueUnavailable; then the outcome is uncertain."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._publish_forever, name="publisher", daemon=True)
            self._thread.start()
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(Message(job_id, self._settings.queue_of(priority), sent))
        try:
            async with asyncio.timeout(self._settings.redis_timeout):
                await sent
        except TimeoutError as error:
            raise QueueUnavailable("no answer from the broker") from error

    async def ping(self) -> None:
        """Raises QueueUnavailable when the broker does not answer."""
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
            channel = connection.channel()
            if hasattr(channel, "client"):  # kombu's Redis channel connects only when used.
                channel.client.ping()

    def _publish_forever(self) -> None:
        producer: Any = None
        while (first := self._waiting.get()) is not None:
            batch = self._batch_from(first)
            try:
                producer = self._publish(batch, producer)
            except Exception as error:  # noqa: BLE001 - whatever the transport raises, the caller must hear of it
                producer = None
                _settle(batch, QueueUnavailable(type(error).__name__))
            else:
                _settle(batch, None)
        _close(producer)

    def _publish(self, batch: list[Message], producer: Any) -> Any:
        """Returns the producer to use next. RabbitMQ's may have lost its connection since its last use: then once more.

        Never after silence: the messages may be in the queue. (kombu looks at a connection to Redis before it uses it.)
        """
        if producer is not None:
            try:
                self._send(batch, producer)
            except Exception as error:
                _close(producer)
                if isinstance(error, TimeoutError) or not is_rabbitmq(self._settings):
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
        # kombu's batch makes a client of its own; for a message alone that is a sixth of the cost.
        with producer.batch() if len(batch) > 1 else nullcontext():
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
            while len(batch) < LARGEST_BATCH:
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
    with suppress(RuntimeError):  # The loop has closed: nobody waits any more.
        loop.call_soon_threadsafe(_settle_on_loop, batch, error)


def _settle_on_loop(batch: list[Message], error: Exception | None) -> None:
    for _, _, sent in batch:
        if sent.done():
            continue
        if error is None:
            sent.set_result(None)
        else:
            sent.set_exception(error)
