"""A page of ours in a real Chromium, and what the browser complained of."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, Route, expect

from pipeline.types import Stage
from tests.support.wait import eventually

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LINK = "https://photos.example/bottle.jpg"
"""Of a photo that the browser has, and nobody else."""

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
        self.page.on("pageerror", lambda error: self.complaints.append((self.page.url, str(error))))
        self.page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108 - it marks the handler

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append((message.location["url"], message.text))

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

    async def submit(self, link: str = LINK) -> None:
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


async def opened(origin: str, context: BrowserContext, samples: Path) -> Visit:
    async def photo(route: Route) -> None:
        await route.fulfill(path=samples / "glass-1.jpg")

    await context.route("https://photos.example/**", photo)
    visit = Visit(await context.new_page(), origin)
    visit.watch()
    await visit.page.goto(visit.origin)
    await expect(visit.page.locator("#status")).to_be_attached()
    return visit
