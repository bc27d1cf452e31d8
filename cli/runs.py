"""One run over photos: submit them, follow each to its end with a progress bar."""

import asyncio
from collections.abc import Mapping

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.outcome import Outcome
from client import ApiProblem, BunriClient, Job, StreamLost

IN_FLIGHT = 32


async def classify(
    api_url: str, photos: Mapping[str, str], *, locale: str, question: str, model: str | None, console: Console
) -> list[Outcome]:
    """`photos` are names and URLs. The outcomes come in their order; bars go to `console`.

    Raises httpx.TransportError when the API cannot be reached.
    """
    gate = asyncio.Semaphore(IN_FLIGHT)
    bars = Progress(
        TextColumn("{task.fields[photo]}", style="bold"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=console,
    )
    async with BunriClient(api_url) as client:

        async def one(photo: str, url: str) -> Outcome:
            bar = bars.add_task("", total=100, photo=photo, state="waiting")
            async with gate:
                try:
                    submitted = await client.submit(url, user_input=question, locale=locale, model=model)
                except ApiProblem as refusal:
                    bars.update(bar, completed=100, state=refusal.code)
                    return Outcome(photo, refusal=refusal)
                job = await _follow(client, submitted.job_id, bars, bar)
            bars.update(bar, completed=100, state=job.error.code if job.error else str(job.status))
            bars.stop_task(bar)
            return Outcome(photo, job)

        with bars:
            return list(await asyncio.gather(*(one(photo, url) for photo, url in photos.items())))


async def _follow(client: BunriClient, job_id: str, bars: Progress, bar: TaskID) -> Job:
    try:
        async for event in client.follow(job_id):
            bars.update(bar, completed=event.progress, state=event.stage)
    except (StreamLost, ApiProblem, httpx.TransportError):
        bars.update(bar, state="polling")
    return await client.wait(job_id)
