"""Where we reach into the private parts of libraries: which names, as of which version.

A private name may change in any release. So each library is pinned here to the minor version that was reviewed, and
each name to its signature. When a test fails: read the file that it names against the library's new source, then
correct the table. The last test finds uses of private names that the table lacks.
"""

from importlib.metadata import version
from typing import NamedTuple

import pytest

from tests.support.library_internals import ATTRIBUTE, modules_of, reaches_in, signature_of

PACKAGES = ("kit", "pipeline", "jobs", "workers", "api", "client", "cli")


class Reach(NamedTuple):
    """A file of ours, and what it uses of a library beyond the library's documentation.

    `names` are, by `module:Class` of the library: functions with their parameters, and attributes, several in a line.
    """

    file: str
    library: str
    reviewed: str
    names: dict[str, dict[str, str]]


REACHES = [
    Reach(
        "workers/runtime/channel.py",
        "kombu",
        "5.7",
        {
            "kombu.transport.redis:Channel": {
                "_brpop_start": "(self, timeout=None)",
                "_brpop_read": "(self, **options)",
                "_restore_at_beginning": "(self, message)",
                "_flush_brpop_reauth": "(self)",
                "_lookup": "(self, exchange, routing_key, default=None)",
                "_q_for_pri": "(self, queue, pri)",
                "_get_message_priority": "(self, message, reverse=False)",
                "basic_ack": "(self, delivery_tag, multiple=False)",
                "basic_reject": "(self, delivery_tag, requeue=False)",
                "conn_or_acquire": "(self, client=None)",
                "_in_poll _brpop_sent_at _queue_cycle do_restore queue_order_strategy active_queues": ATTRIBUTE,
                "brpop_timeout client qos connection": ATTRIBUTE,
            },
            "kombu.transport.redis:SentinelChannel": {
                "_brpop_start": "(self, timeout=None)",
                "_brpop_read": "(self, **options)",
            },
            "kombu.transport.redis:QoS": {
                "can_consume_max_estimate": "(self)",
            },
            "kombu.transport.redis:Transport": {
                "_deliver": "(self, message, queue)",
                "Channel client": ATTRIBUTE,
            },
            "kombu.transport.redis:SentinelTransport": {
                "Channel": ATTRIBUTE,
            },
            "kombu.utils.scheduling:round_robin_cycle": {
                "update": "(self, it)",
                "consume": "(self, n)",
                "rotate": "(self, last_used)",
            },
        },
    ),
    Reach(
        "workers/runtime/channel.py",
        "redis",
        "8.1",
        {
            "redis.client:Redis": {
                "parse_response": "(self, connection, command_name, **options)",
            },
            "redis.connection:Connection": {
                "pack_commands": "(self, commands)",
                "send_packed_command": "(self, command, check_health=True)",
                "disconnect": "(self, *args, **kwargs)",
            },
        },
    ),
    Reach(
        "workers/runtime/consumer.py",
        "celery",
        "5.7",
        {
            "celery.worker.consumer:Consumer": {
                "_flush_events": "(self)",
                "on_send_event_buffered": "(self)",
                "shutdown": "(self)",
                "ensure_connected": "(self, conn)",
                "hub": ATTRIBUTE,
            },
            "celery.worker.consumer:Consumer.Blueprint": {
                "default_steps": ATTRIBUTE,
            },
            "celery.events.dispatcher:EventDispatcher": {
                "buffer_limit": ATTRIBUTE,
            },
        },
    ),
    Reach(
        "workers/runtime/consumer.py",
        "kombu",
        "5.7",
        {
            "kombu.connection:Connection": {
                "_ensure_connection": (
                    "(self, errback=None, max_retries=None, interval_start=2, interval_step=2, interval_max=30,"
                    " callback=None, reraise_as_library_errors=True, timeout=None)"
                ),
            },
        },
    ),
    Reach(
        "workers/runtime/pool.py",
        "celery",
        "5.7",
        {
            "celery.concurrency.base:BasePool": {
                "_get_info": "(self)",
                "on_start": "(self)",
                "on_stop": "(self)",
                "on_terminate": "(self)",
                "on_apply": "(self, *args, **kwargs)",
                "apply_async": "(self, target, args=None, kwargs=None, **options)",
                "register_with_event_loop": "(self, loop)",
                "limit app body_can_be_buffer signal_safe": ATTRIBUTE,
            },
            "celery.app.trace:": {
                "fast_trace_task": (
                    "(task, uuid, request, body, content_type, content_encoding, loads=Ellipsis, _loc=None, "
                    "hostname=None, **_)"
                ),
                "trace_task_ret": (
                    "(name, uuid, request, body, content_type, content_encoding, loads=Ellipsis, app=None, "
                    "**extra_request)"
                ),
            },
            "celery.worker.request:Request": {
                "execute_using_pool": "(self, pool, **kwargs)",
                "on_accepted": "(self, pid, time_accepted)",
                "on_success": "(self, failed__retval__runtime, **kwargs)",
            },
        },
    ),
    Reach(
        "jobs/broker/message.py",
        "kombu",
        "5.7",
        {
            "kombu.transport.virtual:Channel": {
                "_has_queue": "(self, queue, **kwargs)",
                "_next_delivery_tag": "(self)",
                "_put": "(self, queue, message)",
            },
            "kombu.transport.virtual:Transport": {
                "Channel": ATTRIBUTE,
            },
        },
    ),
    Reach(
        "jobs/redis/connection.py",
        "redis",
        "8.1",
        {
            "redis.asyncio.connection:AbstractConnection": {
                "_send_packed_command": "(self, command)",
                "send_packed_command": "(self, command, check_health=True)",
                "pack_commands": "(self, commands)",
                "connect_check_health": "(self, check_health=True, retry_socket_connect=True)",
                "check_health": "(self)",
                "disconnect": "(self, nowait=False, error=None, failure_count=None, health_check_failed=False)",
                "_writer _reader is_connected socket_timeout": ATTRIBUTE,
            },
            "redis.asyncio.connection:ConnectionPool": {
                "ensure_connection": "(self, connection)",
                "connection_class": ATTRIBUTE,
            },
            "redis.asyncio.sentinel:SentinelConnectionPool": {
                "ensure_connection": "(self, connection)",
                "connection_class sentinel_manager": ATTRIBUTE,
            },
            "redis.exceptions:ResponseError": {
                "status_code": ATTRIBUTE,
            },
        },
    ),
    Reach(
        "jobs/redis/scripts.py",
        "redis",
        "8.1",
        {
            "redis.asyncio.connection:AbstractConnection": {
                "send_packed_command": "(self, command, check_health=True)",
                "pack_commands": "(self, commands)",
                "read_response": (
                    "(self, disable_decoding=False, timeout=None, *, disconnect_on_error=True, push_request=False)"
                ),
                "disconnect": "(self, nowait=False, error=None, failure_count=None, health_check_failed=False)",
            },
            "redis.asyncio.connection:ConnectionPool": {
                "get_connection": "(self, command_name=None, *keys, **options)",
                "ensure_connection": "(self, connection)",
            },
            "redis.asyncio.client:Redis": {
                "response_callbacks": ATTRIBUTE,
            },
            "redis.commands.core:AsyncScript": {
                "sha": ATTRIBUTE,
                "__call__": "(self, keys=None, args=None, client=None)",
            },
        },
    ),
    Reach(
        "api/http/direct_route.py",
        "fastapi",
        "0.165",
        {
            "fastapi.routing:APIRoute": {
                "app dependant endpoint": ATTRIBUTE,
            },
            "fastapi.dependencies.models:Dependant": {
                "path_params query_params header_params cookie_params body_params dependencies": ATTRIBUTE,
                "request_param_name name call": ATTRIBUTE,
            },
            "fastapi._compat:ModelField": {
                "validate": "(self, value, values={}, *, loc=())",
                "alias default field_info": ATTRIBUTE,
            },
        },
    ),
    Reach(
        "api/__main__.py",
        "uvicorn",
        "0.54",
        {
            "uvicorn.server:Server": {
                "startup": "(self, sockets=None)",
                "shutdown": "(self, sockets=None)",
            },
            "uvicorn.config:Config": {
                "bind_socket": "(self)",
            },
        },
    ),
    Reach(
        "pipeline/models/openai/client.py",
        "openai",
        "3.57",
        {
            "openai:AsyncOpenAI": {
                "base_url default_headers auth_headers": ATTRIBUTE,
            },
        },
    ),
]


def problems(reach: Reach) -> list[str]:
    """What is not as it was reviewed, with what to do about it."""
    advice = f"read {reach.file} again, then raise the version here"
    installed = ".".join(version(reach.library).split(".")[:2])
    wrong = [f"{reach.library} is {installed}, reviewed was {reach.reviewed}"] if installed != reach.reviewed else []
    wrong += [
        f"{owner}.{name} is {now}, reviewed was {reviewed}"
        for owner, signatures in reach.names.items()
        for names, reviewed in signatures.items()
        for name in names.split()
        if (now := signature_of(owner, name)) != reviewed
    ]
    return [f"{each}: {advice}" for each in wrong]


@pytest.mark.parametrize("reach", REACHES, ids=lambda reach: f"{reach.file}-{reach.library}")
def test_what_we_use_of_a_library_is_as_it_was_reviewed(reach: Reach) -> None:
    assert problems(reach) == []


@pytest.mark.parametrize("reach", REACHES, ids=lambda reach: f"{reach.file}-{reach.library}")
def test_another_version_is_noticed(reach: Reach) -> None:
    (problem,) = problems(reach._replace(reviewed="0.0"))
    assert problem.endswith(f"read {reach.file} again, then raise the version here")


@pytest.mark.parametrize(
    ("owner", "name", "reviewed"),
    [
        ("kombu.transport.redis:Channel", "_renamed", ATTRIBUTE),
        ("kombu.transport.redis:Renamed", "_deliver", "(self, message, queue)"),
        ("kombu.renamed:Channel", "_put", "(self, queue, message)"),
        ("kombu.transport.redis:Channel", "_q_for_pri", "(self, queue)"),
        ("kombu.transport.redis:Channel", "_q_for_pri", ATTRIBUTE),
    ],
)
def test_a_name_that_is_gone_or_has_changed_is_noticed(owner: str, name: str, reviewed: str) -> None:
    assert len(problems(REACHES[0]._replace(names={owner: {name: reviewed}}))) == 1


def test_the_table_names_every_private_name_that_we_reach_for() -> None:
    listed = {
        (reach.file.removesuffix(".py").replace("/", "."), name)
        for reach in REACHES
        for signatures in reach.names.values()
        for name in " ".join(signatures).split()
    }
    missing = sorted(reaches_in(list(modules_of(*PACKAGES))) - listed)
    assert missing == [], "add these to REACHES, with the version that was read"
