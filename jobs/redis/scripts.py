"""Runs the scripts in `lua/`, each as one atomic step of Redis. Scripts and frequent reads share round trips."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.redis.keys import LUA_CONSTANTS
from jobs.redis.signatures import SIGNATURES

MAX_CALLS_PER_TRIP = 200
"""A limit, so that no call waits long for the others' answers."""


class Scripts:
    """One per client. Calls made while a round trip is on its way go out together in the next, in their order.

    A call by itself costs 0.12 ms of CPU, one among twenty a seventh of that. Each still is a step of its own, which
    succeeds or fails alone; but when the connection is lost, no call on it knows whether it happened.
    """

    def __init__(self, client: Redis, timeout: float) -> None:
        """`timeout`: seconds for one round trip. A call waits for the one on its way at most, and then for its own."""
        self._client = client
        self._timeout = timeout
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None
        self._connection: Any = None

    def load(self, name: str) -> "Script":
        """The script `lua/<name>.lua`, to be called with the names of its signature."""
        signature = SIGNATURES[name]
        script = self._client.register_script(script_text(name))
        return Script(self, script, signature.binder(), len(signature.keys))

    async def run(self, command: Sequence[Any]) -> Any:
        """Raises redis-py's errors, or TimeoutError. A call that is cancelled before it was sent is never sent."""
        return await self._join(command)

    async def run_all(self, *commands: Sequence[Any]) -> list[Any]:
        """Several commands, each a step of its own, in this order; in one round trip unless very many calls wait."""
        return await asyncio.gather(*map(self._join, commands))

    def _join(self, command: Sequence[Any]) -> asyncio.Future[Any]:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(command, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return answer

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = [call for call in self._waiting[:MAX_CALLS_PER_TRIP] if not call.answer.done()]
                del self._waiting[:MAX_CALLS_PER_TRIP]
                for call, reply in zip(batch, await self._replies(batch), strict=True):
                    call.settle(reply)
        finally:
            self._sender = None

    async def _replies(self, batch: list["_Call"]) -> list[Any]:
        """The reply to each call; an error is a reply, too."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._round_trip(batch)
        except Exception as error:  # noqa: BLE001 - each caller gets it
            if isinstance(error, (TimeoutError, RedisTimeoutError)):
                self._give_up(error)
            return [error] * len(batch)

    async def _round_trip(self, batch: list["_Call"]) -> list[Any]:
        """Uses a connection that is kept: to take one from the pool for each trip costs more than the trip."""
        if self._connection is None:
            self._connection = await cast("Any", self._client.connection_pool).get_connection()
        connection = self._connection
        try:
            await self._client.connection_pool.ensure_connection(connection)
            await connection.send_packed_command(connection.pack_commands([call.command for call in batch]))
            return [await self._reply(connection, call.command[0]) for call in batch]
        except BaseException:  # Replies may be outstanding.
            await connection.disconnect(nowait=True)
            raise

    async def _reply(self, connection: Any, name: str) -> Any:
        try:
            reply = await connection.read_response()
        except ResponseError as error:
            return error
        convert = self._client.response_callbacks.get(name)
        return convert(reply) if convert else reply

    def _give_up(self, error: Exception) -> None:
        """Fail the queued calls too: they have already waited one timeout."""
        for call in self._waiting:
            call.settle(error)
        self._waiting = []


@dataclass(frozen=True)
class Script:
    _scripts: Scripts
    _script: AsyncScript
    _bind: Callable[[Mapping[str, Any]], list[Any]]
    _key_count: int

    async def __call__(self, **values: Any) -> Any:
        """`values`: each name of the script's signature but for the fixed keys. Raises TypeError for any other name."""
        bound, count = self._bind(values), self._key_count
        try:
            return await self._scripts.run(("EVALSHA", self._script.sha, count, *bound))
        except NoScriptError:  # This Redis has not seen it yet.
            return await self._script(keys=bound[:count], args=bound[count:])


def script_text(name: str) -> str:
    """What Redis runs: the names of keys, the prelude, the names of the arguments, the script."""
    folder = files("jobs.redis") / "lua"
    constants = "".join(f"local {constant} = '{key}'\n" for constant, key in LUA_CONSTANTS.items())
    prelude, script = ((folder / f"{part}.lua").read_text() for part in ("prelude", name))
    return constants + prelude + SIGNATURES[name].header + script


@dataclass(frozen=True)
class _Call:
    command: Sequence[Any]
    answer: asyncio.Future[Any]

    def settle(self, reply: Any) -> None:
        if self.answer.done():  # Its caller was cancelled, or has waited long enough.
            return
        if isinstance(reply, Exception):
            self.answer.set_exception(reply)
        else:
            self.answer.set_result(reply)
