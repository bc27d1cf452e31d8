"""Messages to Redis without Celery: sent on the event loop, in shared round trips."""

from jobs.broker.message import JobMessage
from jobs.errors import LedgerUnavailable, QueueUnavailable
from jobs.redis.connection import connect_to, disconnect, translated
from jobs.redis.scripts import Scripts
from jobs.settings import JobsSettings


class RedisSender:
    """Pushes the text that Celery would push. Messages that come during a round trip share the next one."""

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
        except Exception as error:  # Such as a Redis that denies us: the caller must get every error as this one.
            raise QueueUnavailable(type(error).__name__) from error
