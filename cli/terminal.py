"""Shared by all commands: the consoles, how a command ends, and how one runs until it is done or stopped.

Other imports are inside the functions, so that `--help` answers before anything else is loaded.
"""

import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer
from rich.console import Console

if TYPE_CHECKING:
    from client import BunriClient

USAGE_ERROR = 2

Value = TypeVar("Value")

out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)


class Interrupted(typer.Exit):
    """Ended by Ctrl-C, SIGTERM or a closed terminal. Exits with the shell's code for that, unless caught."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)


def notify(line: str) -> None:
    """Print a line to stderr as it is: brackets in it are not rich's markup."""
    err.print(line, markup=False, highlight=False, soft_wrap=True)


def give_up(reason: str) -> NoReturn:
    """Print the reason to stderr and exit with 2."""
    err.print(reason, style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(USAGE_ERROR)


def check_settings() -> None:
    """Exit with all mistakes in the settings, if there are any."""
    from cli import configuration

    if mistakes := configuration.mistakes():
        give_up("mistakes in the settings:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))


def run(work: Awaitable[Value]) -> Value:
    """Run to the end, or until a signal, which cancels `work`: it can still clean up. Raises Interrupted.

    Failures that need no traceback, of a start or of the API, end the command with a line.
    """
    import asyncio

    import httpx

    from cli.stack.ports import PortTaken
    from cli.stack.processes import StartFailed
    from client import ApiProblem

    received: list[signal.Signals] = []
    try:
        return asyncio.run(_until_signal(work, received))
    except asyncio.CancelledError:
        raise Interrupted(received[0]) from None
    except (PortTaken, StartFailed, ApiProblem) as error:
        give_up(str(error))
    except httpx.TransportError as error:
        give_up(f"the API cannot be reached: {type(error).__name__}")


def call_api(base_url: str, request: "Callable[[BunriClient], Awaitable[Value]]") -> Value:
    """Send one request to a running API."""

    async def call() -> Value:
        from client import BunriClient

        async with BunriClient(base_url) as client:
            return await request(client)

    return run(call())


async def _until_signal(work: Awaitable[Value], received: list[signal.Signals]) -> Value:
    """Signals that come are appended to `received`."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in one

    def stop(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    # SIGINT, too: a shell starts background commands with it ignored, and asyncio leaves that so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return await work
