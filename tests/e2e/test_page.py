"""The page at / in a real Chromium, on a real API and a real Redis, while the test plays the worker.

Asserts on codes, states and data, never on the page's sentences.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from jobs.model import Claim, JobError, JobStatus
from jobs.settings import JobsSettings
from kit.text import one_line
from pipeline.settings import PipelineSettings
from pipeline.storage import LinkExpired, LocalStore
from pipeline.types import Answer, AnswerForm, Classification, Locale, Observation, PipelineResult, RuleMatch, Stage
from tests.support.api_server import ApiServer, first_claim, running_api
from tests.support.browser import LINK as PHOTO
from tests.support.browser import Visit, opened
from tests.support.injections import INJECTIONS
from tests.support.jobs import completed, new_job, result, started

SCAN = "/api/v1/scan"
IMAGES = "/api/v1/images/scan"
UPLOADS = "**/api/v1/images/uploads/**"
SHOWN_STAGES = ["queued", "fetch", "vision", "rule", "answer", "done"]
HOSTILE = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script> & '&lt;b&gt;' &amp;amp;"

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""One event loop, so that one browser serves all tests; each has a context, an API and an empty Redis of its own."""


@pytest_asyncio.fixture(loop_scope="module")
async def api(redis_url: str, uploads: Path) -> AsyncIterator[ApiServer]:
    jobs = JobsSettings.model_validate({"redis_url": redis_url})
    pipeline = PipelineSettings.model_validate({"upload_dir": uploads, "fetch_max_bytes": 3_000_000})
    async with running_api(jobs, pipeline=pipeline) as api:
        yield api


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def photo(samples: Path) -> Path:
    return samples / "glass-1.jpg"


@pytest_asyncio.fixture(loop_scope="module")
async def visit(api: ApiServer, browser: Browser, samples: Path) -> AsyncIterator[Visit]:
    """The page as a Korean browser opens it. Afterwards: no console error, and no request left the API's origin."""
    context = await browser.new_context(locale="ko-KR")
    visit = await opened(api.origin, context, samples)
    yield visit
    await context.close()
    assert visit.unexpected == []
    assert visit.foreign == []


async def run_to_end(api: ApiServer, claim: Claim, outcome: PipelineResult) -> None:
    """What a worker records for a job that goes well."""
    ledger = api.services.ledger
    await ledger.claims.record(claim, started(Stage.FETCH))
    await ledger.claims.record(claim, completed(Stage.FETCH), started(Stage.VISION))
    await ledger.claims.record(
        claim, completed(Stage.VISION, outcome.observation), completed(Stage.RULE), started(Stage.ANSWER)
    )
    await ledger.claims.record(claim, completed(Stage.ANSWER, outcome.answer))
    await ledger.claims.complete(claim, outcome)


def spoken(words: str, *, degraded: bool = False) -> PipelineResult:
    """A result whose every text of a model is `words`."""
    place = Classification(major_category="재활용폐기물", middle_category="유리병", minor_category=words)
    return PipelineResult(
        observation=Observation(classification=place, confidence=0.876, model="gpt-test"),
        rule=RuleMatch(key="glass", category="유리병", document={"title": "유리병"}),
        answer=Answer(disposal_steps=(words, "헹군다"), insufficiencies=(words,), user_answer=words, model="gpt-test"),
        degraded=degraded,
    )


def ruled(document: Mapping[str, object]) -> PipelineResult:
    rule = RuleMatch(key="glass", category="유리병", document=dict(document))
    return spoken("헹군다").model_copy(update={"rule": rule})


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
    await ledger.claims.record(claim, started(Stage.FETCH))
    await visit.shows(Stage.FETCH, "started")
    assert (await visit.stages())[0] == "completed"
    await ledger.claims.record(claim, completed(Stage.FETCH), started(Stage.VISION))
    await visit.shows(Stage.VISION, "started")
    await expect(page.locator("#progress")).to_have_js_property("value", 20)
    await ledger.claims.record(claim, completed(Stage.VISION), completed(Stage.RULE), started(Stage.ANSWER))
    await visit.shows(Stage.ANSWER, "started")
    assert await visit.stages() == ["completed", "completed", "completed", "completed", "started", "waiting"]
    await expect(page.locator("#result")).to_be_hidden()

    await ledger.claims.complete(claim, result())
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


async def test_a_waiting_scan_shows_how_many_are_ahead_as_they_become_fewer(api: ApiServer, visit: Visit) -> None:
    ledger = api.services.ledger
    ahead = [(await ledger.submissions.create(new_job())).job_id for _ in range(7)]
    await visit.submit()
    await expect(visit.page.locator("#status")).to_contain_text("7")
    assert await ledger.claims.claim(ahead[0])
    await expect(visit.page.locator("#status")).to_contain_text("6")


async def test_the_question_reaches_the_job(api: ApiServer, visit: Visit) -> None:
    await visit.page.fill("#question", " 뚜껑은요? ")
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    assert claim.input.user_input == "뚜껑은요?"


async def test_a_failed_job_shows_its_code_and_no_result(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.claims.record(claim, started(Stage.FETCH))
    await api.services.ledger.claims.fail(claim, failure(claim), Stage.FETCH)
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
    await api.services.ledger.claims.fail(first, failure(first), Stage.FETCH)
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
    await api.services.ledger.claims.fail(claim, failure(claim, "source.corrupt_image", retryable=False), Stage.FETCH)
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


async def test_no_injection_is_more_than_words_in_a_result(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    texts = [one_line(each.text) for each in INJECTIONS]
    said = spoken(HOSTILE)
    answer = said.answer.model_copy(update={"disposal_steps": tuple(texts), "user_answer": "\n".join(texts)})
    await run_to_end(api, await first_claim(api.services.ledger), said.model_copy(update={"answer": answer}))
    await visit.ends("completed")
    assert await visit.texts("#steps > li") == texts
    assert await visit.texts("#answer") == ["\n".join(texts)]
    assert await visit.page.locator(":is(#answer, #steps > li) > *").count() == 0
    assert await visit.page.evaluate("window.pwned") is None


async def test_a_chat_that_the_local_model_answered_in_place_of_another_says_so(api: ApiServer, visit: Visit) -> None:
    await visit.page.click("#tab-chat")
    await visit.page.fill("#message", "유리병")
    await visit.page.press("#message", "Enter")
    claim = await first_claim(api.services.ledger)
    assert (claim.input.user_input, claim.input.has_photo, claim.input.form) == ("유리병", False, AnswerForm.PROSE)
    await run_to_end(api, claim, spoken("비워요", degraded=True))
    await expect(visit.page.locator("#chat-degraded-note")).to_be_visible()
    await expect(visit.page.locator("#chat-local-note")).to_be_hidden()
    await expect(visit.page.locator("#chat-things .value")).to_have_text("87%")


async def test_the_rule_behind_an_answer_opens_by_keyboard_and_names_its_source(api: ApiServer, visit: Visit) -> None:
    source = {"title": "지침", "url": "https://rules.example/"}
    document = {"title": "유리병", "cautions": [HOSTILE, "조심"], "not_this": ["거울"], "source": source}
    await visit.submit()
    await run_to_end(api, await first_claim(api.services.ledger), ruled(document))
    await visit.ends("completed")
    await expect(visit.page.locator("#cautions")).to_be_hidden()
    await visit.page.press("#rule-part > summary", "Enter")
    await expect(visit.page.locator("#cautions")).to_be_visible()
    assert await visit.texts("#cautions > li") == [HOSTILE, "조심"]
    assert await visit.texts("#not-this > li") == ["거울"]
    await expect(visit.page.locator("#source")).to_have_attribute("href", source["url"])
    await expect(visit.page.locator("#source")).to_have_attribute("rel", "noopener noreferrer")
    assert await visit.page.evaluate("window.pwned") is None


async def test_a_source_that_is_no_web_link_is_no_link(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    source = {"title": "지침", "url": "javascript:window.pwned=1"}
    await run_to_end(api, await first_claim(api.services.ledger), ruled({"title": "유리병", "source": source}))
    await visit.ends("completed")
    await expect(visit.page.locator("#source")).to_have_text("지침")
    assert await visit.page.locator("#source").get_attribute("href") is None


async def test_a_rule_without_more_to_say_offers_nothing_to_open(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    await run_to_end(api, await first_claim(api.services.ledger), ruled({"title": "유리병"}))
    await visit.ends("completed")
    await expect(visit.page.locator("#rule-part")).to_be_hidden()


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
    visit = await opened(api.origin, await browser.new_context(locale="fr-FR"), samples)
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
    visit = await opened(api.origin, context, samples)
    width = "document.documentElement.scrollWidth"
    assert await visit.page.evaluate(width) == 360
    await visit.submit(f"{PHOTO}?{'x' * 500}")
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.claims.record(claim, started(Stage.FETCH))
    await visit.shows(Stage.FETCH, "started")
    await expect(visit.page.locator("#preview")).to_be_visible()
    assert await visit.page.evaluate(width) == 360
    await run_to_end(api, claim, spoken("w" * 400))
    await expect(visit.page.locator("#model")).to_have_text("gpt-test")
    assert await visit.page.evaluate(width) == 360
    assert visit.unexpected == []


async def test_every_control_has_a_name_and_can_be_reached_by_keyboard(visit: Visit) -> None:
    nameless = await visit.page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, button, progress, meter, [role=group], #tabs")]
            .filter((control) => ![...(control.labels ?? [])].some((label) => label.textContent.trim())
                && !control.getAttribute("aria-label") && !control.getAttribute("aria-labelledby")
                && !control.textContent.trim())
            .map((control) => control.id)"""
    )
    assert nameless == []
    reached = []
    for _ in range(7):
        await visit.page.keyboard.press("Tab")
        reached.append(await visit.page.evaluate("document.activeElement.dataset.locale ?? document.activeElement.id"))
    assert reached == ["ko", "en", "tab-scan", "file", "image-url", "question", "submit"]


async def test_the_outcome_takes_the_focus_from_the_button(api: ApiServer, visit: Visit) -> None:
    await visit.page.fill("#image-url", PHOTO)
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    await run_to_end(api, claim, result())
    await expect(visit.page.locator("#result-title")).to_be_focused()


async def test_cancel_ends_the_job(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.claims.record(claim, started(Stage.FETCH))
    await visit.shows(Stage.FETCH, "started")
    await visit.page.click("#cancel")
    await visit.ends("cancelled")
    job = await api.services.ledger.submissions.get(claim.job_id)
    assert job
    assert job.status is JobStatus.CANCELLED
    await expect(visit.page.locator("#cancelled")).to_be_visible()
    await expect(visit.page.locator("#cancel")).to_be_hidden()
    assert await visit.stages() == ["completed", *["skipped"] * 5]


async def test_a_job_that_somebody_else_cancels_ends_here_too(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.submissions.cancel(claim.job_id)
    await visit.ends("cancelled")


async def test_a_second_submit_while_a_scan_runs_sends_nothing(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    await visit.ends("running")
    await visit.submit()
    await visit.page.click("#cancel")
    await visit.ends("cancelled")
    posted = [urlsplit(request.url).path for request in visit.requests if request.method == "POST"]
    assert [path for path in posted if path == "/api/v1/scan"] == ["/api/v1/scan"]
    assert await api.services.ledger.fleet.depth() == 0


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
    assert await api.services.ledger.fleet.depth() == 1


async def test_a_fault_of_the_request_names_the_fields(visit: Visit) -> None:
    async def spoil(route: Route) -> None:
        await route.continue_(post_data=json.dumps({"image_url": PHOTO, "priority": "urgent"}))

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


def stored(uploads: Path, claim: Claim) -> bytes:
    """What the api has of the photo that the job will read."""
    return (uploads / key_of(claim)).read_bytes()


def content(photo: Path) -> bytes:
    return photo.read_bytes()


def kept(uploads: Path) -> list[Path]:
    return list(uploads.rglob("*.jpg"))


@asynccontextmanager
async def held(page: Page, pattern: str) -> AsyncIterator[asyncio.Event]:
    """Requests like this go no further until the block ends. Gives what is set when there is one."""
    reached, let_go = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        reached.set()
        await let_go.wait()
        await route.continue_()

    await page.route(pattern, hold)
    yield reached
    let_go.set()
    await page.unroute_all(behavior="wait")


def key_of(claim: Claim) -> str:
    assert claim.input.image_key
    return claim.input.image_key


DROP = """([kind, value, target]) => {
    const transfer = new DataTransfer();
    if (kind === "file") transfer.items.add(new File([value], "cup.jpg", { type: "image/jpeg" }));
    else transfer.setData(kind, value);
    const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector(target).dispatchEvent(event);
    return event.defaultPrevented;
}"""

DROP_FILE = """([name, type, bytes]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""

PASTE = """([words, target]) => {
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File(["pasted"], "image.png", { type: "image/png" }));
    if (words) clipboardData.setData("text/plain", words);
    const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
    document.querySelector(target).dispatchEvent(event);
    return event.defaultPrevented;
}"""

WATCH_BLOBS = """() => {
    window.revoked = [];
    const revoke = URL.revokeObjectURL;
    URL.revokeObjectURL = (url) => { window.revoked.push(url); revoke.call(URL, url); };
}"""


@pytest.mark.parametrize("kind", ["text/uri-list", "text/plain"])
async def test_a_dropped_link_is_taken(visit: Visit, kind: str) -> None:
    assert await visit.page.evaluate(DROP, [kind, f"# a comment\r\n{PHOTO}", "#scan"])
    await expect(visit.page.locator("#image-url")).to_have_value(PHOTO)
    await expect(visit.page.locator("#preview")).to_be_visible()


async def test_dropped_words_without_a_link_are_declined_kindly(visit: Visit) -> None:
    assert await visit.page.evaluate(DROP, ["text/plain", "no link", "#form"])
    await expect(visit.page.locator("#notice")).to_have_attribute("data-code", "no_link")
    await expect(visit.page.locator("#notice")).to_be_visible()
    await expect(visit.page.locator("#image-url")).to_have_value("")


async def test_words_dropped_on_the_question_are_left_to_the_browser(visit: Visit) -> None:
    assert not await visit.page.evaluate(DROP, ["text/plain", "words", "#question"])
    await expect(visit.page.locator("#notice")).to_be_hidden()


async def test_a_picked_photo_arrives_unchanged_and_its_job_reads_it(
    api: ApiServer, visit: Visit, photo: Path, uploads: Path
) -> None:
    await visit.page.fill("#question", "뚜껑은요?")
    await visit.choose(photo)
    await expect(visit.page.locator("#preview")).to_be_visible()
    await expect(visit.page.locator("#preview")).to_have_attribute("src", re.compile("^blob:"))
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    assert (claim.input.image_url, claim.input.user_input, claim.input.locale) == ("", "뚜껑은요?", Locale.KO)
    assert stored(uploads, claim) == content(photo)
    await visit.has_asked(("POST", IMAGES), ("PUT", "/api/v1/images"), ("POST", SCAN))
    announced, sent, _ = (request for request in visit.requests if request.method in {"POST", "PUT"})
    assert json.loads(announced.post_data or "") == {"filename": photo.name, "content_type": "image/jpeg"}
    assert sent.headers["content-type"] == "image/jpeg"
    assert "idempotency-key" not in sent.headers

    await visit.shows(Stage.QUEUED, "started")
    assert await visit.stages() == ["completed", "started", *["waiting"] * 5]
    shown = [await item.get_attribute("data-stage") for item in await visit.page.locator("#stages > li").all()]
    assert shown == ["upload", *SHOWN_STAGES]
    await run_to_end(api, claim, result())
    await visit.ends("completed")
    assert await visit.stages() == ["completed"] * 7
    await expect(visit.page.locator("#cached-note")).to_be_hidden()


@pytest.mark.parametrize("target", ["#form", "#scan", "#question", "body"])
async def test_a_file_may_be_dropped_anywhere(api: ApiServer, visit: Visit, uploads: Path, target: str) -> None:
    assert await visit.page.evaluate(DROP, ["file", "dropped", target])
    await expect(visit.page.locator("#chosen-name")).to_have_text("cup.jpg")
    await expect(visit.page.locator("#notice")).to_be_hidden()
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    assert stored(uploads, claim) == b"dropped"


@pytest.mark.parametrize(("target", "words"), [("body", ""), ("#image-url", "image.png"), ("#question", "")])
async def test_a_picture_may_be_pasted(api: ApiServer, visit: Visit, uploads: Path, target: str, words: str) -> None:
    assert await visit.page.evaluate(PASTE, [words, target])
    await expect(visit.page.locator("#chosen-part")).to_be_visible()
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    assert key_of(claim).endswith(".png")
    assert stored(uploads, claim) == b"pasted"


async def test_words_pasted_into_the_question_stay_words_though_a_picture_comes_with_them(visit: Visit) -> None:
    assert not await visit.page.evaluate(PASTE, ["a cell of a table", "#question"])
    await expect(visit.page.locator("#chosen-part")).to_be_hidden()


async def test_the_last_choice_wins_and_a_replaced_file_is_let_go(
    api: ApiServer, visit: Visit, photo: Path, samples: Path
) -> None:
    page, preview = visit.page, visit.page.locator("#preview")
    await page.evaluate(WATCH_BLOBS)
    await page.fill("#image-url", PHOTO)
    await visit.choose(photo)
    await expect(page.locator("#image-url")).to_have_value("")
    await expect(preview).to_have_attribute("src", re.compile("^blob:"))
    first = await preview.get_attribute("src")
    await visit.choose(samples / "metal-1.jpg")
    await expect(preview).not_to_have_attribute("src", first or "")
    second = await preview.get_attribute("src")
    assert await page.evaluate("window.revoked") == [first]
    await page.fill("#image-url", PHOTO)
    await expect(preview).to_have_attribute("src", PHOTO)
    await expect(page.locator("#chosen-part")).to_be_hidden()
    assert await page.evaluate("window.revoked") == [first, second]
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    assert (claim.input.image_url, claim.input.image_key) == (PHOTO, None)
    await visit.has_asked(("POST", SCAN))


async def test_a_dropped_link_replaces_a_file(visit: Visit, photo: Path) -> None:
    await visit.choose(photo)
    await visit.page.evaluate(DROP, ["text/uri-list", PHOTO, "body"])
    await expect(visit.page.locator("#chosen-part")).to_be_hidden()
    await expect(visit.page.locator("#preview")).to_have_attribute("src", PHOTO)


async def test_a_chosen_file_can_be_removed_and_chosen_again(visit: Visit, photo: Path) -> None:
    page = visit.page
    await page.evaluate(WATCH_BLOBS)
    await visit.choose(photo)
    await page.click("#remove")
    await expect(page.locator("#chosen-part")).to_be_hidden()
    await expect(page.locator("#preview")).to_be_hidden()
    await expect(page.locator("#file")).to_be_focused()
    assert len(await page.evaluate("window.revoked")) == 1
    await page.click("#submit")
    await expect(page.locator("#notice")).to_have_attribute("data-code", "empty")
    await visit.choose(photo)
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator("#preview")).to_be_visible()


async def test_a_phone_offers_its_camera(
    api: ApiServer, browser: Browser, samples: Path, photo: Path, uploads: Path
) -> None:
    context = await browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    visit = await opened(api.origin, context, samples)
    await expect(visit.page.locator('label[for="camera"]')).to_be_visible()
    await expect(visit.page.locator("#camera")).to_have_attribute("capture", "environment")
    await expect(visit.page.locator("#camera")).to_have_attribute("accept", "image/*")
    await expect(visit.page.locator("#file")).not_to_have_attribute("capture", re.compile(""))
    await visit.page.set_input_files("#camera", photo)
    await visit.page.tap("#submit")
    claim = await first_claim(api.services.ledger)
    assert stored(uploads, claim) == content(photo)
    assert visit.unexpected == []
    await context.close()


async def test_a_desktop_offers_no_camera(visit: Visit) -> None:
    await expect(visit.page.locator('label[for="camera"]')).to_be_hidden()
    await expect(visit.page.locator("#camera")).to_be_hidden()


async def test_a_slow_upload_shows_how_far_it_is(api: ApiServer, visit: Visit, tmp_path: Path, uploads: Path) -> None:
    photo = tmp_path / "big.jpg"
    photo.write_bytes(bytes(range(256)) * 8_000)
    session = await visit.page.context.new_cdp_session(visit.page)
    await session.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1_000_000}
    await session.send("Network.emulateNetworkConditions", slow)
    await visit.page.evaluate(
        """() => {
            window.shares = [];
            const bar = document.querySelector("#upload-progress");
            new MutationObserver(() => window.shares.push(bar.value)).observe(bar, { attributeFilter: ["value"] });
        }"""
    )
    await visit.upload(photo)
    await visit.shows_upload("started")
    await visit.ends("uploading")
    await expect(visit.page.locator("#upload-progress")).to_be_visible()
    await expect(visit.page.locator("#progress")).to_be_hidden()
    await expect(visit.page.locator("#scan")).to_have_attribute("aria-busy", "true")
    claim = await first_claim(api.services.ledger)
    shares = await visit.page.evaluate("window.shares")
    assert shares == sorted(shares)
    assert [share for share in shares if 0 < share < 1]
    await visit.shows_upload("completed")
    await expect(visit.page.locator("#upload-progress")).to_be_hidden()
    assert stored(uploads, claim) == content(photo)


@pytest.mark.parametrize("step", [f"**{IMAGES}", UPLOADS], ids=["link", "file"])
async def test_cancel_while_uploading_leaves_no_job(
    api: ApiServer, visit: Visit, photo: Path, uploads: Path, step: str
) -> None:
    async with held(visit.page, step) as reached:
        await visit.upload(photo)
        await asyncio.wait_for(reached.wait(), 15)
        await visit.shows_upload("started")
        await visit.page.click("#cancel")
        await visit.ends("cancelled")
        await expect(visit.page.locator("#cancelled")).to_be_visible()
        await expect(visit.page.locator("#cancel")).to_be_hidden()
        assert await visit.stages() == ["skipped"] * 7
    await visit.page.wait_for_load_state("networkidle")
    assert ("POST", SCAN) not in visit.asked
    assert await api.services.ledger.fleet.depth() == 0
    assert kept(uploads) == []

    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    assert stored(uploads, claim) == content(photo)


async def test_a_second_submit_while_uploading_sends_nothing(visit: Visit, photo: Path) -> None:
    async with held(visit.page, UPLOADS) as reached:
        await visit.upload(photo)
        await asyncio.wait_for(reached.wait(), 15)
        await visit.page.press("#image-url", "Enter")
    await visit.ends("running")
    assert visit.asked == [("POST", IMAGES), ("PUT", "/api/v1/images"), ("POST", SCAN)]


async def test_a_type_that_is_not_accepted_is_refused_like_anything_else(visit: Visit, tmp_path: Path) -> None:
    drawing = tmp_path / "drawing.svg"
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    visit.broken.append(IMAGES)
    await visit.upload(drawing)
    await visit.ends("refused")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "source.unsupported_media")
    await expect(visit.page.locator("#retry")).to_be_hidden()
    assert await visit.stages() == ["failed", *["skipped"] * 6]
    assert visit.asked == [("POST", IMAGES)]


@pytest.mark.parametrize("extension", ["HEIC", "heif", "avif"])
async def test_a_type_that_the_browser_does_not_know_goes_by_the_extension(
    api: ApiServer, visit: Visit, uploads: Path, extension: str
) -> None:
    """The preview cannot show it; its name can."""
    await visit.page.evaluate(DROP_FILE, [f"IMG.1.{extension}", "", [0, 255, 128]])
    await expect(visit.page.locator("#chosen-name")).to_have_text(f"IMG.1.{extension}")
    await expect(visit.page.locator("#preview")).to_be_hidden()
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    assert key_of(claim).endswith(f".{extension.lower()}")
    assert stored(uploads, claim) == bytes([0, 255, 128])


async def test_a_file_of_no_known_type_is_refused(visit: Visit) -> None:
    visit.broken.append(IMAGES)
    await visit.page.evaluate(DROP_FILE, ["notes", "", [1]])
    await visit.page.click("#submit")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "source.unsupported_media")


async def test_a_file_above_the_limit_shows_the_problem(visit: Visit, tmp_path: Path, uploads: Path) -> None:
    photo = tmp_path / "huge.jpg"
    photo.write_bytes(bytes(3_000_001))
    visit.broken.append("/uploads/")
    await visit.upload(photo)
    await visit.ends("refused")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "source.too_large")
    await expect(visit.page.locator("#retry")).to_be_hidden()
    assert kept(uploads) == []


async def cut(route: Route) -> None:
    await route.abort()


async def answer_without_a_problem(route: Route) -> None:
    await route.fulfill(status=403, body="<Error/>", content_type="application/xml")


@pytest.mark.parametrize("fail", [cut, answer_without_a_problem])
async def test_an_upload_that_failed_can_be_tried_again(
    api: ApiServer, visit: Visit, photo: Path, uploads: Path, fail: Callable[[Route], Awaitable[None]]
) -> None:
    visit.broken.append("/uploads/")
    await visit.page.route(UPLOADS, fail)
    await visit.upload(photo)
    await visit.ends("refused")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "page.upload_failed")
    assert await visit.stages() == ["failed", *["skipped"] * 6]
    await visit.page.unroute(UPLOADS)
    await visit.page.click("#retry")
    claim = await first_claim(api.services.ledger)
    assert stored(uploads, claim) == content(photo)
    await run_to_end(api, claim, result())
    await visit.ends("completed")
    await expect(visit.page.locator("#failure")).to_be_hidden()
    assert await visit.stages() == ["completed"] * 7


@pytest.mark.parametrize("times", [1, 2])
async def test_an_expired_link_to_upload_is_replaced_once(
    api: ApiServer, visit: Visit, photo: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    check, keys = LocalStore.check_link, list[str]()

    def expire(store: LocalStore, verb: str, key: str, expires: str, signature: str) -> None:
        keys.append(key)
        if len(keys) <= times:
            raise LinkExpired
        check(store, verb, key, expires, signature)

    monkeypatch.setattr(LocalStore, "check_link", expire)
    visit.broken.append("/uploads/")
    await visit.upload(photo)
    if times == 1:
        claim = await first_claim(api.services.ledger)
        assert key_of(claim) == keys[1] != keys[0]
    else:
        await visit.ends("refused")
        await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "upload.expired")
    assert len(keys) == 2


async def test_once_the_photo_is_there_only_the_request_is_sent_again(
    api: ApiServer, visit: Visit, photo: Path
) -> None:
    ledger, keys = api.services.ledger, list[str]()

    async def lose_the_first_answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            await route.continue_()
            return
        await route.fetch()
        await route.abort()

    visit.broken.append(SCAN)
    await visit.page.route(f"**{SCAN}", lose_the_first_answer)
    await visit.upload(photo)
    await visit.ends("refused")
    await expect(visit.page.locator("#failure")).to_have_attribute("data-code", "page.unreachable")
    await visit.shows_upload("completed")
    await visit.page.click("#retry")
    await visit.ends("running")
    assert keys == [keys[0]] * 2
    assert await ledger.fleet.depth() == 1

    first = await first_claim(ledger)
    await ledger.claims.fail(first, failure(first), Stage.FETCH)
    await visit.page.click("#retry")
    second = await first_claim(ledger)
    assert second.job_id != first.job_id
    assert key_of(second) == key_of(first)
    await visit.has_asked(("POST", IMAGES), ("PUT", "/api/v1/images"), *[("POST", SCAN)] * 3)


async def test_an_answer_that_is_used_again_says_so(api: ApiServer, visit: Visit, photo: Path) -> None:
    await visit.upload(photo)
    claim = await first_claim(api.services.ledger)
    await run_to_end(api, claim, result().model_copy(update={"cached": True}))
    await visit.ends("completed")
    await expect(visit.page.locator("#cached-note")).to_be_visible()


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
async def test_an_upload_does_not_scroll_sideways_on_a_phone(
    api: ApiServer, browser: Browser, samples: Path, tmp_path: Path, locale: str
) -> None:
    context = await browser.new_context(
        locale=locale, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740}
    )
    visit = await opened(api.origin, context, samples)
    long = tmp_path / f"{'x' * 200}.jpg"
    long.write_bytes((samples / "glass-1.jpg").read_bytes())
    width = "document.documentElement.scrollWidth"
    await visit.choose(long)
    await expect(visit.page.locator("#preview")).to_be_visible()
    assert await visit.page.evaluate(width) == 360
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    assert await visit.page.evaluate(width) == 360
    broken = """() => [...document.querySelectorAll("#stages .name")]
        .filter((name) => name.getClientRects().length > 1 || name.offsetHeight > 24).map((name) => name.textContent)"""
    assert await visit.page.evaluate(broken) == []
    await run_to_end(api, claim, result())
    await expect(visit.page.locator("#model")).to_have_text("local/test")
    assert await visit.page.evaluate(width) == 360
    assert visit.unexpected == []
    await context.close()
