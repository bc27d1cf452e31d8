"""Celery's settings for the broker, Redis or RabbitMQ, for publishers and consumers alike."""

from typing import Any

from kombu.entity import Queue

from jobs.redis.url import is_redis, kombu_url
from jobs.settings import JobsSettings

HEARTBEAT_SECONDS = 10
"""A worker takes RabbitMQ for lost after two of them."""

CONSUMER_TIMEOUT_SECONDS = 10.0
"""Seconds that a worker's broker thread may wait for Redis; kombu's default has no limit (docs/libraries.md, C9)."""

MAX_DELIVERIES = 10
"""Deliveries of one message before RabbitMQ dead-letters it. The ledger ends a job long before that."""

MAX_DEAD_LETTERS = 10_000


def is_rabbitmq(settings: JobsSettings) -> bool:
    return settings.broker.startswith(("amqp://", "amqps://"))


def consumer_settings(settings: JobsSettings, *queues: str) -> dict[str, Any]:
    """For a worker, whose connection is read on a thread of its own."""
    found = _broker_settings(settings, queues, timeout=CONSUMER_TIMEOUT_SECONDS)
    return found | {"broker_heartbeat": HEARTBEAT_SECONDS}


def publisher_settings(settings: JobsSettings, *queues: str) -> dict[str, Any]:
    """For a publisher: the broker confirms each message, or the publish times out after `redis_timeout`."""
    found = _broker_settings(settings, queues, timeout=settings.redis_timeout)
    if is_rabbitmq(settings):
        found["broker_transport_options"] = {"confirm_publish": True}
    return found | {"broker_connection_timeout": settings.redis_timeout}


def _broker_settings(settings: JobsSettings, queues: tuple[str, ...], *, timeout: float) -> dict[str, Any]:
    url, options = kombu_url(settings.broker)
    if is_rabbitmq(settings):
        return {"broker_url": url, "task_queues": [_quorum_queue(name) for name in queues]}
    if is_redis(settings.broker):
        options |= _redis_options(settings, timeout)
        if watched := options.get("sentinel_kwargs"):
            watched |= {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    return {"broker_url": url, "broker_transport_options": options}


def _redis_options(settings: JobsSettings, timeout: float) -> dict[str, Any]:
    """No emulated acknowledgements, so no list of unacknowledged messages and no visibility timeout (decision 0010).

    A message that a dead worker had taken is sent again by the ledger, which knows better who holds a job.
    """
    return {
        "ack_emulation": False,
        "priority_steps": [0],
        "socket_timeout": timeout,
        "socket_connect_timeout": settings.redis_timeout,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def dead_letters(queue: str) -> str:
    return f"{queue}.dead"


def dead_letter_queue(queue: str) -> Queue:
    """Messages that RabbitMQ dead-lettered, for a person to look at; the oldest makes room."""
    arguments = {"x-queue-type": "quorum", "x-max-length": MAX_DEAD_LETTERS}
    return Queue(dead_letters(queue), routing_key=dead_letters(queue), queue_arguments=arguments)


def _quorum_queue(name: str) -> Queue:
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": MAX_DELIVERIES,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letters(name),
    }
    return Queue(name, routing_key=name, queue_arguments=arguments)
