"""The page when requests fail: without the stream, without answers, with a request that is wrong."""

import json

import pytest
from playwright.async_api import Browser, Route, expect

from pipeline.types import Stage
from tests.support.api_server import ApiServer, first_claim
from tests.support.browser import PHOTO, Visit, new_tab, opened
from tests.support.jobs import result, started
from tests.support.played_worker import run_to_end
from tests.support.wait import eventually

POLL_MS = 2_000
MAX_POLL_FAILURES = 5

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("fault", ["refused", "cut"])
async def test_without_the_stream_polling_brings_the_result(api: ApiServer, visit: Visit, fault: str) -> None:
    """A proxy may refuse the stream, or cut it each time."""

    async def fail(route: Route) -> None:
        await (route.fulfill(status=503) if fault == "refused" else route.abort())

    visit.broken.append("/events")
    await visit.page.route("**/events", fail)
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.claims.record(claim, started(Stage.FETCH))
    await visit.shows(Stage.FETCH, "started")
    await run_to_end(api.services.ledger, claim, result())
    await visit.ends("completed")
    assert await visit.texts("#steps > li") == ["비운다", "헹군다"]


async def test_when_polling_fails_too_the_same_job_can_be_looked_for_again(api: ApiServer, browser: Browser) -> None:
    async def fail(route: Route) -> None:
        await route.fulfill(status=502, body="<h1>Bad gateway</h1>", content_type="text/html")

    async def has_given_up() -> bool:
        await tab.clock.fast_forward(POLL_MS)
        return await tab.locator("#scan").get_attribute("data-outcome") == "refused"

    async with new_tab(browser) as tab:
        visit = await opened(api.origin, tab)
        await tab.clock.install()
        await tab.route("**/events", fail)
        await tab.route("**/result", fail)
        await visit.submit()
        claim = await first_claim(api.services.ledger)
        await run_to_end(api.services.ledger, claim, result())
        await eventually(has_given_up)
        await expect(tab.locator("#failure")).to_have_attribute("data-code", "page.unreadable")
        assert len([request for request in visit.requests if request.url.endswith("/result")]) == MAX_POLL_FAILURES
        await tab.unroute("**/result")
        await tab.click("#retry")
        await visit.ends("completed")
        await expect(tab.locator("#failure")).to_be_hidden()
        assert len([request for request in visit.requests if request.url.endswith("/api/v1/scan")]) == 1
        visit.broken += ["/events", "/result"]
        assert visit.unexpected == []


async def test_an_api_out_of_reach_is_said_and_sending_again_stays_one_job(api: ApiServer, visit: Visit) -> None:
    """The first request arrives and its answer is lost, so a repeat must carry the same key."""
    keys = []

    async def lose_the_first_answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            await route.continue_()
            return
        await route.fetch()
        await route.abort()

    visit.broken.append("/api/v1/scan")
    await visit.page.route("**/api/v1/scan", lose_the_first_answer)
    await visit.submit()
    await visit.ends("refused")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "page.unreachable")
    await visit.page.click("#retry")
    await visit.ends("running")
    assert keys == [keys[0]] * 2
    assert await api.services.ledger.fleet.depth() == 1


async def test_a_fault_of_the_request_names_the_fields(visit: Visit) -> None:
    async def spoil(route: Route) -> None:
        await route.continue_(post_data=json.dumps({"image_url": PHOTO, "priority": "urgent"}))

    visit.broken.append("/api/v1/scan")
    await visit.page.route("**/api/v1/scan", spoil)
    await visit.submit()
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "request.invalid")
    assert [text.split(":")[0] for text in await visit.texts("#failure-fields > li")] == ["body.priority"]


async def test_a_refused_link_of_a_question_shows_the_problem(visit: Visit) -> None:
    visit.broken += ["http://10.0.0.1/", "/api/v1/chat/messages"]
    await visit.page.click("#tab-chat")
    await visit.page.click("#attach > summary")
    await visit.page.fill("#image-url", "http://10.0.0.1/x.jpg")
    await visit.page.click("#chat-submit")
    await expect(visit.page.locator("#chat")).to_have_attribute("data-outcome", "refused")
    await expect(visit.page.locator("#chat-failure")).to_have_attribute("data-code", "source.url_unsafe")
    await expect(visit.page.locator("#chat-retry")).to_be_hidden()
