"""The way into the queue: task name + job id.

A publish has three outcomes: sent, refused, unknown (facts.md, Celery 3). So a failure here never undoes a job:
the ledger's outbox still lists it, and the sweep sends it again under the same id.
"""

from typing import Protocol, Self

import uuid_utils.compat

from jobs.broker.celery_sender import CelerySender
from jobs.broker.message import JobMessage
from jobs.model import Priority
from jobs.redis.connection import LedgerUnavailable, QueueUnavailable, connect_to, disconnect, translated
from jobs.redis.scripts import Scripts
from jobs.redis.url import is_redis
from jobs.settings import JobsSettings


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


class Sender(Protocol):
    """Sends messages. Both methods raise QueueUnavailable; of a message the outcome is uncertain then."""

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


class RedisSender:
    """Pushes what Celery would push. Messages that come while others are on their way go out together in the next."""

    def __init__(self, settings: JobsSettings) -> None:
        self._client = connect_to(settings.broker, settings.redis_timeout)
        self._commands = Scripts(self._client, settings.redis_timeout)
        self._messages = {lane: JobMessage(lane) for lane in settings.queues}

    async def send(self, job_id: str, lane: str) -> None:
        await self._run("LPUSH", lane, self._messages[lane].of(job_id))

    async def ping(self) -> None:
        await self._run("PING")

    async def close(self) -> None:
        await disconnect(self._client)

    async def _run(self, *command: str) -> None:
        try:
            with translated():
                await self._commands.run(command)
        except LedgerUnavailable as error:
            raise QueueUnavailable(str(error)) from error
        except Exception as error:  # A Redis that does not let us: whatever it says, the caller must hear of it.
            raise QueueUnavailable(type(error).__name__) from error
