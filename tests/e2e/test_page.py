"""The page at / in a real Chromium, on a real API and a real Redis, while the test plays the worker.

Asserts on codes, states and data, never on the page's sentences.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, async_playwright, expect

from pipeline.types import Answer, Classification, Locale, Observation, PipelineResult, RuleMatch, Stage
from tests.support.api_server import ApiServer, first_claim, running_api
from tests.support.jobs import completed, result, started
from workers.jobs.model import Claim, JobError, JobStatus
from workers.jobs.settings import JobsSettings

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHOTO = "https://photos.example/bottle.jpg"
SHOWN_STAGES = ["queued", "fetch", "vision", "rule", "answer", "done"]
HOSTILE = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script> & '&lt;b&gt;' &amp;amp;"

expect.set_options(timeout=15_000)

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""One event loop, so that one browser serves all tests; each has a context, an API and an empty Redis of its own."""


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

    async def texts(self, selector: str) -> list[str]:
        return await self.page.locator(selector).all_text_contents()


@pytest_asyncio.fixture(loop_scope="module")
async def api(redis_url: str) -> AsyncIterator[ApiServer]:
    async with running_api(JobsSettings.model_validate({"redis_url": redis_url})) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(api: ApiServer, browser: Browser, samples: Path) -> AsyncIterator[Visit]:
    """The page as a Korean browser opens it. Afterwards: no console error, and no request left the API's origin."""
    context = await browser.new_context(locale="ko-KR")
    visit = await opened(api, context, samples)
    yield visit
    await context.close()
    assert visit.unexpected == []
    assert visit.foreign == []


async def opened(api: ApiServer, context: BrowserContext, samples: Path) -> Visit:
    async def photo(route: Route) -> None:
        await route.fulfill(path=samples / "glass-1.jpg")

    await context.route("https://photos.example/**", photo)
    visit = Visit(await context.new_page(), str(api.client.base_url).rstrip("/"))
    visit.watch()
    await visit.page.goto(visit.origin)
    await expect(visit.page.locator("#status")).to_be_attached()
    return visit


async def run_to_end(api: ApiServer, claim: Claim, outcome: PipelineResult) -> None:
    """What a worker records for a job that goes well."""
    ledger = api.services.ledger
    await ledger.record(claim, started(Stage.FETCH))
    await ledger.record(claim, completed(Stage.FETCH), started(Stage.VISION))
    await ledger.record(
        claim, completed(Stage.VISION, outcome.observation), completed(Stage.RULE), started(Stage.ANSWER)
    )
    await ledger.record(claim, completed(Stage.ANSWER, outcome.answer))
    await ledger.complete(claim, outcome)


def spoken(words: str, *, degraded: bool = False) -> PipelineResult:
    """A result whose every text of a model is `words`."""
    place = Classification(major_category="재활용폐기물", middle_category="유리병", minor_category=words)
    return PipelineResult(
        observation=Observation(classification=place, confidence=0.876, model="gpt-test"),
        rule=RuleMatch(key="glass", category="유리병", document={"title": "유리병"}),
        answer=Answer(disposal_steps=(words, "헹군다"), insufficiencies=(words,), user_answer=words, model="gpt-test"),
        degraded=degraded,
    )


def failure(claim: Claim, code: str = "source.timeout", *, retryable: bool = True) -> JobError:
    return JobError(code=code, retryable=retryable, trace_id=claim.trace_id)


async def test_a_scan_goes_through_its_stages_to_category_and_steps(api: ApiServer, visit: Visit) -> None:
    ledger, page = api.services.ledger, visit.page
    await visit.submit()
    await visit.ends("running")
    await visit.shows(Stage.QUEUED, "started")
    assert await visit.stages() == ["started", *["waiting"] * 5]
    assert [await item.get_attribute("data-stage") for item in await page.locator("#stages > li").all()] == SHOWN_STAGES

    claim = await first_claim(ledger)
    assert (claim.input.image_url, claim.input.locale, claim.input.user_input) == (PHOTO, Locale.KO, "")
    await ledger.record(claim, started(Stage.FETCH))
    await visit.shows(Stage.FETCH, "started")
    assert (await visit.stages())[0] == "completed"
    await ledger.record(claim, completed(Stage.FETCH), started(Stage.VISION))
    await visit.shows(Stage.VISION, "started")
    await expect(page.locator("#progress")).to_have_js_property("value", 20)
    await ledger.record(claim, completed(Stage.VISION), completed(Stage.RULE), started(Stage.ANSWER))
    await visit.shows(Stage.ANSWER, "started")
    assert await visit.stages() == ["completed", "completed", "completed", "completed", "started", "waiting"]
    await expect(page.locator("#result")).to_be_hidden()

    await ledger.complete(claim, result())
    await visit.ends("completed")
    assert await visit.stages() == ["completed"] * 6
    assert await visit.texts("#category > span") == ["재활용폐기물", "유리병"]
    assert await visit.texts("#steps > li") == ["비운다", "헹군다"]
    await expect(page.locator("#confidence-meter")).to_have_js_property("value", 0.9)
    await expect(page.locator("#confidence-value")).to_have_text("90%")
    await expect(page.locator("#failure")).to_be_hidden()
    await expect(page.locator("#cancel")).to_be_hidden()
    await expect(page.locator("#checks-part")).to_be_hidden()


async def test_the_result_names_its_model_and_says_when_it_was_the_local_one(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await run_to_end(api, claim, result())
    await expect(visit.page.locator("#model")).to_have_text("local/test")
    await expect(visit.page.locator("#local-note")).to_be_visible()
    await expect(visit.page.locator("#degraded-note")).to_be_hidden()
    await expect(visit.page.locator("#version")).to_have_text(api.services.knowledge.version)
    await expect(visit.page.locator('[data-stage="vision"] .seconds')).to_contain_text("0.5")


async def test_a_degraded_result_says_so(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await run_to_end(api, claim, spoken("와인병", degraded=True))
    await expect(visit.page.locator("#degraded-note")).to_be_visible()
    await expect(visit.page.locator("#local-note")).to_be_hidden()


async def test_the_question_reaches_the_job(api: ApiServer, visit: Visit) -> None:
    await visit.page.fill("#question", " 뚜껑은요? ")
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    assert claim.input.user_input == "뚜껑은요?"


async def test_a_failed_job_shows_its_code_and_no_result(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.record(claim, started(Stage.FETCH))
    await api.services.ledger.fail(claim, failure(claim), Stage.FETCH)
    await visit.ends("failed")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "source.timeout")
    await expect(visit.page.locator("#failure-trace")).to_have_text(claim.trace_id)
    shown = api.services.knowledge.texts.error("source.timeout", Locale.KO)
    await expect(visit.page.locator("#failure-message")).to_have_text(f"{shown.message} {shown.advice}")
    await expect(visit.page.locator("#result")).to_be_hidden()
    assert await visit.stages() == ["completed", "failed", *["skipped"] * 4]


async def test_a_job_that_may_succeed_later_can_be_tried_again(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    first = await first_claim(api.services.ledger)
    await api.services.ledger.fail(first, failure(first), Stage.FETCH)
    await visit.page.click("#retry")
    second = await first_claim(api.services.ledger)
    assert second.job_id != first.job_id
    assert second.input == first.input
    await run_to_end(api, second, result())
    await visit.ends("completed")
    await expect(visit.page.locator("#failure")).to_be_hidden()


async def test_a_job_that_would_fail_again_offers_no_retry(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.fail(claim, failure(claim, "source.corrupt_image", retryable=False), Stage.FETCH)
    await visit.ends("failed")
    await expect(visit.page.locator("#retry")).to_be_hidden()


async def test_a_refused_link_shows_the_problem(visit: Visit) -> None:
    unsafe = "http://127.0.0.1/x.jpg"
    visit.broken += [unsafe, "/api/v1/scan"]  # Nothing listens there for the preview, and 422 is logged.
    await visit.submit(unsafe)
    await visit.ends("refused")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "source.url_unsafe")
    await expect(visit.page.locator("#failure-code")).to_have_text("source.url_unsafe")
    await expect(visit.page.locator("#running")).to_be_hidden()
    await expect(visit.page.locator("#retry")).to_be_hidden()
    await expect(visit.page.locator("#preview")).to_be_hidden()


async def test_an_empty_form_asks_for_a_link_and_sends_nothing(visit: Visit) -> None:
    await visit.page.click("#submit")
    await expect(visit.page.locator("#notice")).to_have_attribute("data-code", "empty")
    await expect(visit.page.locator("#image-url")).to_have_attribute("aria-invalid", "true")
    await expect(visit.page.locator("#image-url")).to_be_focused()
    await visit.ends("idle")
    await visit.page.fill("#image-url", PHOTO)
    await expect(visit.page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("words", [HOSTILE, '"&lt;b&gt;"', "<b>굵게</b>"], ids=["script", "entities", "tags"])
async def test_hostile_words_of_a_model_stay_words(api: ApiServer, visit: Visit, words: str) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await run_to_end(api, claim, spoken(words))
    await visit.ends("completed")
    assert await visit.texts("#category > span") == ["재활용폐기물", "유리병", words]
    assert await visit.texts("#steps > li") == [words, "헹군다"]
    assert await visit.texts("#checks > li") == [words]
    assert await visit.texts("#answer") == [words]
    assert await visit.page.locator("#result :is(img, script, b)").count() == 0
    assert await visit.page.evaluate("window.pwned") is None


async def test_the_language_switch_changes_every_text_and_is_remembered(visit: Visit) -> None:
    page = visit.page
    await expect(page.locator("html")).to_have_attribute("lang", "ko")
    korean = await visit.texts("[data-text]")
    await page.click('[data-locale="en"]')
    await expect(page.locator("html")).to_have_attribute("lang", "en")
    english = await visit.texts("[data-text]")
    assert [text for text in korean if text in english] == []
    await expect(page.locator('[data-locale="en"]')).to_have_attribute("aria-pressed", "true")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("lang", "en")


async def test_the_language_switch_reaches_a_result_that_is_shown(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await run_to_end(api, claim, result())
    await visit.ends("completed")
    before = await visit.texts("#status, #stages .name")
    await visit.page.click('[data-locale="en"]')
    after = await visit.texts("#status, #stages .name")
    assert [text for text in before if text in after] == []
    assert await visit.texts("#steps > li") == ["비운다", "헹군다"]
    await expect(visit.page.locator("#steps")).to_have_attribute("lang", "ko")


async def test_a_browser_in_another_language_gets_english(api: ApiServer, browser: Browser, samples: Path) -> None:
    visit = await opened(api, await browser.new_context(locale="fr-FR"), samples)
    await expect(visit.page.locator("html")).to_have_attribute("lang", "en")
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    assert claim.input.locale is Locale.EN
    assert visit.unexpected == []


async def test_both_languages_have_the_same_texts_and_the_page_asks_for_no_other(visit: Visit) -> None:
    ko, en, used = await visit.page.evaluate(
        """async () => {
            const { TEXTS } = await import("/static/texts.js");
            const used = ["text", "placeholder", "label", "alt"].flatMap((name) =>
                [...document.querySelectorAll(`[data-${name}]`)].map((element) => element.dataset[name]));
            return [Object.keys(TEXTS.ko), Object.keys(TEXTS.en), used];
        }"""
    )
    assert sorted(ko) == sorted(en)
    assert used
    assert set(used) <= set(ko)


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
async def test_nothing_scrolls_sideways_on_a_phone(
    api: ApiServer, browser: Browser, samples: Path, locale: str
) -> None:
    context = await browser.new_context(locale=locale, viewport={"width": 360, "height": 740})
    visit = await opened(api, context, samples)
    width = "document.documentElement.scrollWidth"
    assert await visit.page.evaluate(width) == 360
    await visit.submit(f"{PHOTO}?{'x' * 500}")
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.record(claim, started(Stage.FETCH))
    await visit.shows(Stage.FETCH, "started")
    await expect(visit.page.locator("#preview")).to_be_visible()
    assert await visit.page.evaluate(width) == 360
    await run_to_end(api, claim, spoken("w" * 400))
    await expect(visit.page.locator("#model")).to_have_text("gpt-test")
    assert await visit.page.evaluate(width) == 360
    assert visit.unexpected == []


async def test_every_control_has_a_name_and_can_be_reached_by_keyboard(visit: Visit) -> None:
    nameless = await visit.page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, button, progress, meter, [role=group]")]
            .filter((control) => ![...(control.labels ?? [])].some((label) => label.textContent.trim())
                && !control.getAttribute("aria-label") && !control.getAttribute("aria-labelledby")
                && !control.textContent.trim())
            .map((control) => control.id)"""
    )
    assert nameless == []
    reached = []
    for _ in range(6):
        await visit.page.keyboard.press("Tab")
        reached.append(await visit.page.evaluate("document.activeElement.dataset.locale ?? document.activeElement.id"))
    assert reached[:5] == ["ko", "en", "image-url", "question", "submit"]


async def test_the_outcome_takes_the_focus_from_the_button(api: ApiServer, visit: Visit) -> None:
    await visit.page.fill("#image-url", PHOTO)
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    await run_to_end(api, claim, result())
    await expect(visit.page.locator("#result-title")).to_be_focused()


async def test_cancel_ends_the_job(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.record(claim, started(Stage.FETCH))
    await visit.shows(Stage.FETCH, "started")
    await visit.page.click("#cancel")
    await visit.ends("cancelled")
    job = await api.services.ledger.get(claim.job_id)
    assert job
    assert job.status is JobStatus.CANCELLED
    await expect(visit.page.locator("#cancelled")).to_be_visible()
    await expect(visit.page.locator("#cancel")).to_be_hidden()
    assert await visit.stages() == ["completed", *["skipped"] * 5]


async def test_a_job_that_somebody_else_cancels_ends_here_too(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.cancel(claim.job_id)
    await visit.ends("cancelled")


async def test_a_second_submit_while_a_scan_runs_sends_nothing(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    await visit.ends("running")
    await visit.submit()
    await visit.page.click("#cancel")
    await visit.ends("cancelled")
    posted = [urlsplit(request.url).path for request in visit.requests if request.method == "POST"]
    assert [path for path in posted if path == "/api/v1/scan"] == ["/api/v1/scan"]
    assert await api.services.ledger.depth() == 0


@pytest.mark.parametrize("fault", ["refused", "cut"])
async def test_without_the_stream_polling_brings_the_result(api: ApiServer, visit: Visit, fault: str) -> None:
    """A proxy may refuse the stream, or cut it each time."""

    async def fail(route: Route) -> None:
        await (route.fulfill(status=503) if fault == "refused" else route.abort())

    visit.broken.append("/events")
    await visit.page.route("**/events", fail)
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.record(claim, started(Stage.FETCH))
    await visit.shows(Stage.FETCH, "started")
    await run_to_end(api, claim, result())
    await visit.ends("completed")
    assert await visit.texts("#steps > li") == ["비운다", "헹군다"]


async def test_when_polling_fails_too_the_same_job_can_be_looked_for_again(api: ApiServer, visit: Visit) -> None:
    async def fail(route: Route) -> None:
        await route.fulfill(status=502, body="<h1>Bad gateway</h1>", content_type="text/html")

    visit.broken += ["/events", "/result"]
    await visit.page.route("**/events", fail)
    await visit.page.route("**/result", fail)
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await run_to_end(api, claim, result())
    await visit.ends("refused")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "page.unreadable")
    await visit.page.unroute("**/result")
    await visit.page.click("#retry")
    await visit.ends("completed")
    await expect(visit.page.locator("#failure")).to_be_hidden()
    assert len([request for request in visit.requests if request.url.endswith("/api/v1/scan")]) == 1


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
    assert await api.services.ledger.depth() == 1


async def test_a_fault_of_the_request_names_the_fields(visit: Visit) -> None:
    async def spoil(route: Route) -> None:
        await route.continue_(post_data=json.dumps({"image_url": PHOTO, "priority": "bulk"}))

    visit.broken.append("/api/v1/scan")
    await visit.page.route("**/api/v1/scan", spoil)
    await visit.submit()
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "request.invalid")
    assert [text.split(":")[0] for text in await visit.texts("#failure-fields > li")] == ["body.priority"]


async def test_a_photo_is_previewed_and_one_that_does_not_load_is_not(visit: Visit) -> None:
    preview = visit.page.locator("#preview")
    await visit.page.fill("#image-url", PHOTO)
    await expect(preview).to_be_visible()
    await expect(preview).to_have_attribute("referrerpolicy", "no-referrer")
    await visit.page.route("https://gone.example/**", lambda route: route.fulfill(status=404))
    visit.broken.append("https://gone.example/")
    await visit.page.fill("#image-url", "https://gone.example/x.jpg")
    await expect(preview).to_be_hidden()
    await visit.page.fill("#image-url", "javascript:window.pwned=1")
    await expect(preview).not_to_have_attribute("src", "https://gone.example/x.jpg")
    assert await visit.page.evaluate("window.pwned") is None


DROP = """([kind, value]) => {
    const transfer = new DataTransfer();
    if (kind === "file") transfer.items.add(new File([value], "cup.jpg", { type: "image/jpeg" }));
    else transfer.setData(kind, value);
    const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector("#form").dispatchEvent(event);
    return event.defaultPrevented;
}"""


@pytest.mark.parametrize("kind", ["text/uri-list", "text/plain"])
async def test_a_dropped_link_is_taken(visit: Visit, kind: str) -> None:
    assert await visit.page.evaluate(DROP, [kind, f"# a comment\r\n{PHOTO}"])
    await expect(visit.page.locator("#image-url")).to_have_value(PHOTO)
    await expect(visit.page.locator("#preview")).to_be_visible()


@pytest.mark.parametrize(("kind", "code"), [("file", "file"), ("text/plain", "no_link")])
async def test_a_dropped_file_is_declined_kindly(visit: Visit, kind: str, code: str) -> None:
    assert await visit.page.evaluate(DROP, [kind, "no link"])
    await expect(visit.page.locator("#notice")).to_have_attribute("data-code", code)
    await expect(visit.page.locator("#notice")).to_be_visible()
    await expect(visit.page.locator("#image-url")).to_have_value("")
