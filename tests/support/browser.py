"""A page of ours in a real Chromium, and what the browser complained of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, Route, expect

from pipeline.types import Stage
from tests.support.wait import eventually

CHROMIUM = "/usr/bin/chromium"
SAMPLE = Path(__file__).parent.parent.parent / "samples/glass-1.jpg"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHOTO = "https://photos.example/bottle.jpg"
"""The link of a photo that only the browser has."""
SHOWN_STAGES = ["queued", "fetch", "vision", "rule", "answer", "done"]

expect.set_options(timeout=15_000)


@dataclass
class Visit:
    """A page that has been opened, and what the browser complained of meanwhile.

    `broken` are paths, or links of photos, whose loading is meant to fail in this test.
    """

    page: Page
    origin: str
    broken: list[str] = field(default_factory=list)
    complaints: list[tuple[str, str]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", self._on_error)
        self.page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append((message.location["url"], message.text))

    def _on_error(self, error: Error) -> None:
        self.complaints.append((self.page.url, str(error)))

    def _on_request(self, request: Request) -> None:
        self.requests.append(request)

    async def leave(self) -> None:
        """Leave the tab as if nobody had been there: without connections, routes of the test, and memories."""
        self.page.remove_listener("console", self._on_console)
        self.page.remove_listener("pageerror", self._on_error)
        self.page.remove_listener("request", self._on_request)
        await self.page.unroute_all(behavior="ignoreErrors")
        await self.page.evaluate("localStorage.clear()")
        await self.page.goto("about:blank")

    @property
    def unexpected(self) -> list[tuple[str, str]]:
        return [(url, words) for url, words in self.complaints if not any(part in url for part in self.broken)]

    @property
    def foreign(self) -> list[str]:
        """What was asked of another origin, but for the photos."""
        return [
            request.url
            for request in self.requests
            if not request.url.startswith((f"{self.origin}/", "data:")) and request.resource_type != "image"
        ]

    @property
    def asked(self) -> list[tuple[str, str]]:
        """The requests that make a job, in their order: method and path, which for uploads ends before the key."""
        calls = [(request.method, urlsplit(request.url).path) for request in self.requests]
        return [(method, path.partition("/uploads/")[0]) for method, path in calls if method in {"POST", "PUT"}]

    async def has_asked(self, *expected: tuple[str, str]) -> None:
        """What the server has got, the browser may not have told yet."""

        async def all_are_told() -> bool:
            return len(self.asked) >= len(expected)

        await eventually(all_are_told)
        assert self.asked == [*expected]

    async def choose(self, photo: Path) -> None:
        await self.page.set_input_files("#file", photo)
        await expect(self.page.locator("#chosen-name")).to_have_text(photo.name)

    async def upload(self, photo: Path) -> None:
        await self.choose(photo)
        await self.page.click("#submit")

    async def submit(self, link: str = PHOTO) -> None:
        await self.page.fill("#image-url", link)
        await self.page.press("#image-url", "Enter")

    async def ends(self, outcome: str) -> None:
        await expect(self.page.locator("#scan")).to_have_attribute("data-outcome", outcome)

    async def stages(self) -> list[str | None]:
        items = await self.page.locator("#stages > li").all()
        return [await item.get_attribute("data-status") for item in items]

    async def shows(self, stage: Stage, status: str) -> None:
        await expect(self.page.locator(f'[data-stage="{stage}"]')).to_have_attribute("data-status", status)

    async def shows_upload(self, status: str) -> None:
        await expect(self.page.locator('[data-stage="upload"]')).to_have_attribute("data-status", status)

    async def texts(self, selector: str) -> list[str]:
        return await self.page.locator(selector).all_text_contents()


@asynccontextmanager
async def new_tab(browser: Browser, **options: Any) -> AsyncIterator[Page]:
    """A tab of a context of its own, which has the photo at PHOTO. `options` are Playwright's for contexts."""

    async def photo(route: Route) -> None:
        await route.fulfill(path=SAMPLE)

    context = await browser.new_context(**options)
    await context.route("https://photos.example/**", photo)
    yield await context.new_page()
    await context.close()


async def opened(origin: str, tab: Page) -> Visit:
    visit = Visit(tab, origin)
    visit.watch()
    await tab.goto(origin)
    await expect(tab.locator("#status")).to_be_attached()
    return visit
