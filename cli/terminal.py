"""What every command has in common: where it prints, how it runs to its end or a signal, how it gives up.

What it needs beyond that is imported in the functions: `--help` is there before all of that is loaded.
"""

import signal
import sys
from collections.abc import Awaitable
from typing import Any, NoReturn

import typer
from rich.console import Console

USAGE_ERROR = 2

out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)


def say(line: str) -> None:
    """To people. What is said may hold brackets that are no markup."""
    err.print(line, markup=False, highlight=False, soft_wrap=True)


def check_settings() -> None:
    from cli import configuration

    if mistakes := configuration.mistakes():
        give_up("mistakes in the settings:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))


def give_up(reason: str) -> NoReturn:
    err.print(reason, style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(USAGE_ERROR)


class Interrupted(typer.Exit):
    """By Ctrl-C, SIGTERM or a closed terminal. The exit code is a shell's for that, unless a command knows better."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)


def run(work: Awaitable[Any]) -> Any:
    """Run to the end, or until a signal; then everything is stopped in order. Raises Interrupted."""
    import asyncio

    import httpx

    from cli.stack.ports import PortTaken
    from cli.stack.processes import StartFailed
    from client import ApiProblem

    received: list[signal.Signals] = []

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in one

        def stop(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()

        # SIGINT, too: a shell starts background commands with it ignored, and asyncio leaves that so.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise Interrupted(received[0]) from None
    except (PortTaken, StartFailed) as error:
        give_up(str(error))
    except ApiProblem as problem:
        give_up(str(problem))
    except httpx.TransportError as error:
        give_up(f"the API cannot be reached: {type(error).__name__}")
