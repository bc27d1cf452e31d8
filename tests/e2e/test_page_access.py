"""The page for everybody: both languages, the keyboard, and a phone."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from pipeline.types import Locale, Stage
from tests.support.api_server import ApiServer, first_claim
from tests.support.browser import PHOTO, Visit, new_tab, opened
from tests.support.jobs import result, started
from tests.support.played_worker import content, result_saying, run_to_end, uploaded

PHONE: dict[str, Any] = {"has_touch": True, "is_mobile": True, "viewport": {"width": 360, "height": 740}}

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
    await run_to_end(api.services.ledger, claim, result())
    await visit.ends("completed")
    before = await visit.texts("#status, #stages .name")
    await visit.page.click('[data-locale="en"]')
    after = await visit.texts("#status, #stages .name")
    assert [text for text in before if text in after] == []
    assert await visit.texts("#steps > li") == ["비운다", "헹군다"]
    await expect(visit.page.locator("#steps")).to_have_attribute("lang", "ko")


async def test_a_browser_in_another_language_gets_english(api: ApiServer, browser: Browser) -> None:
    async with new_tab(browser, locale="fr-FR") as tab:
        visit = await opened(api.origin, tab)
        await expect(visit.page.locator("html")).to_have_attribute("lang", "en")
        await visit.submit()
        claim = await first_claim(api.services.ledger)
        assert claim.input.locale is Locale.EN
        assert visit.unexpected == []


async def test_both_languages_have_the_same_texts_and_the_page_asks_for_no_other(visit: Visit) -> None:
    ko, en, used = await visit.page.evaluate(
        """async () => {
            const { TEXTS } = await import("/static/scripts/texts.js");
            const used = ["text", "placeholder", "label", "alt"].flatMap((name) =>
                [...document.querySelectorAll(`[data-${name}]`)].map((element) => element.dataset[name]));
            return [Object.keys(TEXTS.ko), Object.keys(TEXTS.en), used];
        }"""
    )
    assert sorted(ko) == sorted(en)
    assert used
    assert set(used) <= set(ko)


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
async def test_nothing_scrolls_sideways_on_a_phone(api: ApiServer, browser: Browser, locale: str) -> None:
    async with new_tab(browser, locale=locale, viewport={"width": 360, "height": 740}) as tab:
        visit = await opened(api.origin, tab)
        width = "document.documentElement.scrollWidth"
        assert await visit.page.evaluate(width) == 360
        await visit.submit(f"{PHOTO}?{'x' * 500}")
        claim = await first_claim(api.services.ledger)
        await api.services.ledger.claims.record(claim, started(Stage.FETCH))
        await visit.shows(Stage.FETCH, "started")
        await expect(visit.page.locator("#preview")).to_be_visible()
        assert await visit.page.evaluate(width) == 360
        await run_to_end(api.services.ledger, claim, result_saying("w" * 400))
        await expect(visit.page.locator("#model")).to_have_text("gpt-test")
        assert await visit.page.evaluate(width) == 360
        assert visit.unexpected == []


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
async def test_an_upload_does_not_scroll_sideways_on_a_phone(
    api: ApiServer, browser: Browser, samples: Path, tmp_path: Path, locale: str
) -> None:
    async with new_tab(
        browser, locale=locale, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740}
    ) as tab:
        visit = await opened(api.origin, tab)
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
            .filter((name) => name.getClientRects().length > 1 || name.offsetHeight > 24)
            .map((name) => name.textContent)"""
        assert await visit.page.evaluate(broken) == []
        await run_to_end(api.services.ledger, claim, result())
        await expect(visit.page.locator("#model")).to_have_text("local/test")
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


async def test_a_phone_offers_its_camera(api: ApiServer, browser: Browser, photo: Path, uploads: Path) -> None:
    async with new_tab(browser, **PHONE) as tab:
        visit = await opened(api.origin, tab)
        await expect(visit.page.locator('label[for="camera"]')).to_be_visible()
        await expect(visit.page.locator("#camera")).to_have_attribute("capture", "environment")
        await expect(visit.page.locator("#camera")).to_have_attribute("accept", "image/*")
        await expect(visit.page.locator("#file")).not_to_have_attribute("capture", re.compile(""))
        await visit.page.set_input_files("#camera", photo)
        await visit.page.tap("#submit")
        claim = await first_claim(api.services.ledger)
        assert uploaded(uploads, claim) == content(photo)
        assert visit.unexpected == []


async def test_a_desktop_offers_no_camera(visit: Visit) -> None:
    await expect(visit.page.locator('label[for="camera"]')).to_be_hidden()
    await expect(visit.page.locator("#camera")).to_be_hidden()


async def test_the_tabs_go_by_arrow_keys_and_can_be_linked_to(visit: Visit, samples: Path) -> None:
    page = visit.page
    await page.click("#tab-chat")
    assert page.url.endswith("#chat")
    await page.locator("#tab-chat").focus()
    for key, tab, panel in [
        ("ArrowRight", "#tab-scan", "#panel-scan"),
        ("ArrowLeft", "#tab-chat", "#panel-chat"),
        ("Home", "#tab-scan", "#panel-scan"),
        ("End", "#tab-chat", "#panel-chat"),
    ]:
        await page.keyboard.press(key)
        await expect(page.locator(tab)).to_be_focused()
        await expect(page.locator(tab)).to_have_attribute("aria-selected", "true")
        await expect(page.locator(panel)).to_be_visible()
        assert await page.locator("[role=tab][aria-selected=true]").count() == 1
        assert await page.locator("[role=tab][tabindex='0']").count() == 1
        assert await page.locator("[role=tabpanel]:visible").count() == 1
    await page.reload()
    await expect(page.locator("#panel-chat")).to_be_visible()
    await visit.page.click("#attach > summary")
    await visit.choose(samples / "glass-1.jpg")
    await page.click("#tab-scan")
    await expect(page.locator("#panel-scan #chosen-name")).to_be_visible()  # One photo, for whichever is asked.
    await page.goto(f"{visit.origin}/#nowhere")
    await expect(page.locator("#panel-scan")).to_be_visible()


async def test_every_control_of_a_question_can_be_reached_by_keyboard(visit: Visit) -> None:
    await visit.page.click("#tab-chat")
    await visit.page.locator("#tab-chat").focus()
    reached = []
    for _ in range(3):
        await visit.page.keyboard.press("Tab")
        reached.append(await visit.page.evaluate("document.activeElement.id || document.activeElement.parentNode.id"))
    assert reached == ["message", "attach", "chat-submit"]


async def test_an_empty_question_is_not_sent(visit: Visit) -> None:
    await visit.page.click("#tab-chat")
    await visit.page.click("#chat-submit")
    await expect(visit.page.locator("#chat-notice")).to_have_attribute("data-code", "no_words")
    await expect(visit.page.locator("#message")).to_be_focused()
    assert visit.asked == []
    await visit.page.fill("#message", "유리병")
    await expect(visit.page.locator("#chat-notice")).to_be_hidden()
