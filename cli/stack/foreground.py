"""`bunri up`: a stack in the foreground, with its addresses on the screen."""

import asyncio
from collections.abc import Callable

from rich.console import Console

from cli.stack.stack import Stack, StackOptions, running_stack


async def serve(options: StackOptions, *, out: Console, notify: Callable[[str], None]) -> None:
    """Run until cancelled."""
    notify("starting …")
    async with running_stack(options, notify=notify) as stack:
        _print_addresses(stack, out)
        await asyncio.Event().wait()


def _print_addresses(stack: Stack, out: Console) -> None:
    addresses = {
        "playground": f"{stack.api_url}/",
        "API docs": f"{stack.api_url}/docs",
        "metrics": f"{stack.api_url}/metrics",
        "Flower": stack.flower_url,
        "Redis": stack.redis,
        "webhooks": stack.webhook_secret,
    }
    for name, address in addresses.items():
        out.print(f"{name:<11} {address}", highlight=False, soft_wrap=True)
    out.print("Ctrl-C stops everything.")
