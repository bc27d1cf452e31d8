"""One run over photos: submit them, follow each to its end with a progress bar."""

import asyncio
import mimetypes
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.scan.outcome import PhotoOutcome
from cli.stack.stack import StackOptions, running_stack
from cli.terminal import notify
from client import ApiProblem, BunriClient, Job, StreamLost
from pipeline.storage import MEDIA_TYPES

MAX_IN_FLIGHT = 32


async def classify(
    api_url: str,
    photos: Sequence[str | Path],
    *,
    locale: str,
    question: str,
    model: str | None,
    console: Console,
    priority: str = "interactive",
) -> list[PhotoOutcome]:
    """Classify links and files (which are uploaded), at most 32 at once. Returns their outcomes in the same order.

    Progress bars go to `console`. Raises httpx.TransportError when the API cannot be reached.
    """
    slots = asyncio.Semaphore(MAX_IN_FLIGHT)
    bars = Progress(
        TextColumn("{task.fields[photo]}", style="bold", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )
    async with BunriClient(api_url) as client:

        async def one(source: str | Path) -> PhotoOutcome:
            photo = name_of(source)
            bar = bars.add_task("", total=100, photo=photo, state="waiting")
            async with slots:
                try:
                    url, key = await _upload(client, source)
                    submitted = await client.submit(
                        url, image_key=key, user_input=question, locale=locale, model=model, priority=priority
                    )
                    job = await _follow(client, submitted.job_id, bars, bar)
                except ApiProblem as refusal:
                    bars.update(bar, completed=100, state=refusal.code)
                    return PhotoOutcome(photo, refusal=refusal)
            bars.update(bar, completed=100, state=job.error.code if job.error else str(job.status))
            bars.stop_task(bar)
            return PhotoOutcome(photo, job)

        with bars:
            return list(await asyncio.gather(*map(one, photos)))


async def classify_on_own_stack(
    photos: Sequence[str | Path],
    *,
    console: Console,
    locale: str,
    question: str,
    model: str | None,
    priority: str = "interactive",
) -> list[PhotoOutcome]:
    """As `classify`, on a stack that is removed afterwards, with its data. Raises StartFailed."""
    with tempfile.TemporaryDirectory(prefix="bunri-") as folder:
        console.print("starting Redis, a worker and the API …")
        options = StackOptions(Path(folder), with_flower=False, is_private=True)
        async with running_stack(options, notify=notify) as stack:
            return await classify(
                stack.api_url,
                photos,
                console=console,
                locale=locale,
                question=question,
                model=model,
                priority=priority,
            )


def name_of(source: str | Path) -> str:
    """File name, or link without its query, which is a credential."""
    return source.name if isinstance(source, Path) else source.partition("?")[0]


async def _upload(client: BunriClient, source: str | Path) -> tuple[str | None, str | None]:
    """The link of a photo, or the key of an uploaded file; the other is None."""
    if isinstance(source, str):
        return source, None
    upload = await client.upload(await asyncio.to_thread(source.read_bytes), _media_type(source))
    return None, upload.key


def _media_type(file: Path) -> str:
    """Guessed from the file's name, as browsers do. It need not be right: the server decides by the bytes."""
    suffix = file.suffix.lower().removeprefix(".")
    return MEDIA_TYPES.get(suffix) or mimetypes.guess_type(file.name)[0] or "image/jpeg"


async def _follow(client: BunriClient, job_id: str, bars: Progress, bar: TaskID) -> Job:
    """Follow the events; poll when the stream is lost."""
    try:
        async for event in client.follow(job_id):
            bars.update(bar, completed=event.progress, state=event.stage)
    except (StreamLost, ApiProblem, httpx.TransportError):
        bars.update(bar, state="polling")
    return await client.wait(job_id)
