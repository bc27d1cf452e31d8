"""`bunri webhook`: the delivery attempts of one webhook as a table."""

from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from client import Delivery


def print_delivery(delivery: Delivery, console: Console) -> None:
    """Each attempt, in local time, the state, and the time of the next attempt."""
    table = Table("attempt", "at", "answer", "s", "outcome", "next in", box=box.SIMPLE_HEAD)
    for attempt in delivery.attempts:
        table.add_row(
            str(attempt.number),
            _time(attempt.at),
            str(attempt.status or attempt.error or "–"),
            "–" if attempt.seconds is None else f"{attempt.seconds:.2f}",
            attempt.outcome,
            "–" if attempt.retry_in is None else f"{attempt.retry_in:g} s",
        )
    if delivery.attempts:
        console.print(table)
    planned = f", next attempt {_time(delivery.next_attempt_at)}" if delivery.next_attempt_at else ""
    console.print(f"{delivery.state}{planned}", highlight=False)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
