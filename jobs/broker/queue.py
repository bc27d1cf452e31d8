"""The way into the queue: task name + job id.

A publish has three outcomes: sent, rejected, unknown (docs/libraries.md, C3). So a failure here never undoes a job:
the ledger's outbox still lists it, and the sweep sends it again under the same id.
"""

from typing import Protocol, Self

from jobs.broker.celery_sender import CelerySender
from jobs.broker.redis_sender import RedisSender
from jobs.model import Priority
from jobs.redis.url import is_redis
from jobs.settings import JobsSettings


class Sender(Protocol):
    """Sends messages. `send` and `ping` raise QueueUnavailable; the message may have been sent all the same."""

    async def send(self, job_id: str, lane: str) -> None: ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class JobQueue:
    """One per process. Connects on first use."""

    def __init__(self, settings: JobsSettings) -> None:
        self._settings = settings
        self._sender: Sender = RedisSender(settings) if is_redis(settings.broker) else CelerySender(settings)

    @classmethod
    def connect(cls, settings: JobsSettings) -> Self:
        return cls(settings)

    async def enqueue(self, job_id: str, priority: Priority = Priority.INTERACTIVE) -> None:
        """Send the job's message to its lane. Raises QueueUnavailable; then the outcome is uncertain."""
        await self._sender.send(job_id, self._settings.queue_of(priority))

    async def ping(self) -> None:
        """Raises QueueUnavailable when the broker does not answer."""
        await self._sender.ping()

    async def close(self) -> None:
        await self._sender.close()
