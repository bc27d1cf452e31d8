"""For the tests of the page: one browser, tab and API for all of them; each test has a new page and an empty Redis.

They live in the event loop of the session, and so must the tests that use them.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings
from tests.support.api_server import ApiServer, running_api
from tests.support.browser import ARGUMENTS, CHROMIUM, Visit, new_tab, opened
from tests.support.redis_server import RedisServer


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def upload_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def warm_api(redis_server: RedisServer, upload_dir: Path) -> AsyncIterator[ApiServer]:
    jobs = JobsSettings.model_validate({"redis_url": redis_server.url})
    pipeline = PipelineSettings.model_validate({"upload_dir": upload_dir, "fetch_max_bytes": 3_000_000})
    async with running_api(jobs, pipeline=pipeline) as api:
        yield api


@pytest.fixture
def api(warm_api: ApiServer, redis_url: str) -> ApiServer:  # noqa: ARG001 - it empties the Redis that both use
    """The API on a Redis that is empty again."""
    return warm_api


@pytest.fixture
def uploads(upload_dir: Path) -> Path:
    """Where the API keeps uploads; empty but for its secret."""
    for folder in upload_dir.glob("*/"):
        shutil.rmtree(folder)
    return upload_dir


@pytest.fixture
def photo(samples: Path) -> Path:
    return samples / "glass-1.jpg"


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def tab(browser: Browser) -> AsyncIterator[Page]:
    """A tab of a Korean browser. Each visit leaves it empty, and only the browser's cache stays warm."""
    async with new_tab(browser, locale="ko-KR") as tab:
        yield tab


@pytest_asyncio.fixture(loop_scope="session")
async def visit(api: ApiServer, tab: Page) -> AsyncIterator[Visit]:
    """The page as a Korean browser opens it. Afterwards: no console error, and no request left the API's origin."""
    visit = await opened(api.origin, tab)
    yield visit
    await visit.leave()
    assert visit.unexpected == []
    assert visit.foreign == []
