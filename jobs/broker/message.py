"""A job's message as it lies in Redis: the text that Celery writes for one job, with the id of another."""

import secrets
from base64 import b64encode
from itertools import count
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.transport import virtual
from kombu.utils.json import dumps

RUN_JOB = "bunri.run_job"

EXAMPLE = "00000000-0000-7000-8000-00000000000e"
OTHER = "00000000-0000-7000-8000-00000000000f"
TAG = "00000000-delivery-tag"


class JobMessage:
    """Makes the messages of one queue. Asks Celery twice, at the start, not for each job: `send_task` takes 0.2 ms CPU.

    Raises RuntimeError if Celery writes an id where we do not expect it: then this file must be mended.
    """

    def __init__(self, queue: str) -> None:
        app = Celery("bunri", set_as_current=False)
        app.conf.update(task_default_queue=queue, task_ignore_result=True)
        self._text = _written(app, EXAMPLE)
        if self._text.count(TAG) != 1 or self._with(OTHER) != _written(app, OTHER):
            raise RuntimeError("Celery's messages are not what they were")
        self._sender, self._count = secrets.token_hex(8), count()

    def of(self, job_id: str) -> str:
        # A tag of its own for each, by which kombu tells messages apart that one worker holds.
        return self._with(job_id).replace(TAG, f"{self._sender}-{next(self._count)}")

    def _with(self, job_id: str) -> str:
        return self._text.replace(_in_body(EXAMPLE), _in_body(job_id)).replace(EXAMPLE, job_id)


def _in_body(job_id: str) -> str:
    """The body is the base64 of `[["ID"], …`: ids of 36 letters, behind three, are a piece of it by themselves."""
    return b64encode(job_id.encode()).decode()


def _written(app: Celery, job_id: str) -> str:
    """The text that kombu's Redis transport would push for this task."""
    with Connection(transport=CapturingTransport) as connection:
        producer = app.amqp.Producer(connection)
        app.send_task(RUN_JOB, (job_id,), task_id=job_id, producer=producer, retry=False)
        return str(dumps(connection.transport.pushed))


class CapturingChannel(virtual.Channel):
    """A channel that keeps the message instead of pushing it."""

    def _has_queue(self, *_: object, **__: object) -> bool:
        return True

    def _next_delivery_tag(self) -> str:
        return TAG

    def _put(self, queue: str, message: dict[str, Any], **_: object) -> None:
        del queue
        self.connection.pushed = message


class CapturingTransport(virtual.Transport):
    Channel = CapturingChannel
    pushed: dict[str, Any]
