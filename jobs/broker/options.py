"""How Celery is told about the broker, Redis or RabbitMQ: the same for whoever publishes and whoever consumes."""

from typing import Any

from kombu.entity import Queue

from jobs.redis.url import broker_place, is_redis
from jobs.settings import JobsSettings

HEARTBEAT = 10
"""Seconds; a worker misses RabbitMQ after two of them."""

CONSUMER_TIMEOUT = 10.0
"""Seconds that a worker's broker thread may wait for Redis; kombu has no limit unless told (facts.md, Celery 9)."""

MOST_DELIVERIES = 10
"""How often RabbitMQ hands out one message before it lays it aside. The ledger ends a job long before that."""

MOST_DEAD_LETTERS = 10_000


def is_rabbitmq(settings: JobsSettings) -> bool:
    return settings.broker.startswith(("amqp://", "amqps://"))


def consumer_settings(settings: JobsSettings, *queues: str) -> dict[str, Any]:
    """For a worker, whose connection is read on a thread of its own."""
    return _broker_settings(settings, queues, timeout=CONSUMER_TIMEOUT) | {"broker_heartbeat": HEARTBEAT}


def publisher_settings(settings: JobsSettings, *queues: str) -> dict[str, Any]:
    """For whoever sends messages: it hears whether the broker has taken one, or hears nothing for so long."""
    found = _broker_settings(settings, queues, timeout=settings.redis_timeout)
    if is_rabbitmq(settings):
        found["broker_transport_options"] = {"confirm_publish": True}
    return found | {"broker_connection_timeout": settings.redis_timeout}


def _broker_settings(settings: JobsSettings, queues: tuple[str, ...], *, timeout: float) -> dict[str, Any]:
    url, options = broker_place(settings.broker)
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
    """What RabbitMQ laid aside, for a person to look at; the oldest makes room."""
    arguments = {"x-queue-type": "quorum", "x-max-length": MOST_DEAD_LETTERS}
    return Queue(dead_letters(queue), routing_key=dead_letters(queue), queue_arguments=arguments)


def _quorum_queue(name: str) -> Queue:
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": MOST_DELIVERIES,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letters(name),
    }
    return Queue(name, routing_key=name, queue_arguments=arguments)
