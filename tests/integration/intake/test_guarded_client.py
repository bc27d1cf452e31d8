"""Guarded HTTP against real servers: how each of its errors comes about."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from kit.address import AddressGuard
from kit.errors import ConnectTimeout, HostNotFound, HttpError, ReadTimeout, Unreachable, UnsafeUrl
from kit.http import GuardedClient
from tests.support.image_server import cut, full_backlog, image_server, silence
from tests.support.redis_server import closed_port

Trouble = Callable[[ExitStack], str]
"""Sets up a server in trouble. Returns a URL that meets it, without its query."""


def lookup(host: str, _port: int) -> list[str]:
    if host == "unknown.example":
        raise socket.gaierror(socket.EAI_NONAME, "meant")
    if host == "silent-name-server.example":
        raise socket.gaierror(socket.EAI_AGAIN, "meant")
    return ["10.0.0.1"]


def full(stack: ExitStack) -> str:
    return f"http://127.0.0.1:{stack.enter_context(full_backlog())}/photo"


def silent(stack: ExitStack) -> str:
    return stack.enter_context(image_server(lambda _request: silence())).url("/photo")


def silent_in_the_body(stack: ExitStack) -> str:
    return stack.enter_context(image_server(lambda _request: silence(headers=True))).url("/photo")


def breaks_off(stack: ExitStack) -> str:
    return stack.enter_context(image_server(lambda _request: cut(b"photo" * 9, 5))).url("/photo")


TROUBLES: list[tuple[Trouble, type[HttpError]]] = [
    (lambda _: "http://private.example/photo", UnsafeUrl),
    (lambda _: "http://unknown.example/photo", HostNotFound),
    (lambda _: "http://silent-name-server.example/photo", Unreachable),
    (lambda _: f"http://127.0.0.1:{closed_port()}/photo", Unreachable),
    (breaks_off, Unreachable),
    (full, ConnectTimeout),
    (silent, ReadTimeout),
    (silent_in_the_body, ReadTimeout),
]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(("trouble", "kind"), TROUBLES)
async def test_trouble_has_its_error_and_its_detail_no_query(
    stack: ExitStack, trouble: Trouble, kind: type[HttpError]
) -> None:
    guard = AddressGuard("127.0.0.1", (80,))
    client = GuardedClient(guard, connect_seconds=0.3, read_seconds=0.3, headers={}, lookup=lookup)
    target = guard.check_url(f"{trouble(stack)}?sig=secret")
    with pytest.raises(HttpError) as failed:
        async with client.request("GET", target) as response:
            await response.read()
    assert type(failed.value) is kind
    assert target.host in str(failed.value)
    assert "secret" not in str(failed.value)
    await client.close()


def test_every_error_has_its_trouble() -> None:
    def leaves(kind: type[HttpError]) -> set[type[HttpError]]:
        return {leaf for each in kind.__subclasses__() for leaf in leaves(each)} or {kind}

    assert {kind for _, kind in TROUBLES} == leaves(HttpError)
