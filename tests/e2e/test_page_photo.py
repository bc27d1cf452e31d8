"""Choosing the photo: by link, by file, dropped or pasted; the last choice counts."""

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.support.api_server import ApiServer, first_claim
from tests.support.browser import PHOTO, Visit
from tests.support.played_worker import image_key_of, uploaded

SCAN = "/api/v1/scan"

pytestmark = pytest.mark.asyncio(loop_scope="session")


DROP = """([kind, value, target]) => {
    const transfer = new DataTransfer();
    if (kind === "file") transfer.items.add(new File([value], "cup.jpg", { type: "image/jpeg" }));
    else transfer.setData(kind, value);
    const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector(target).dispatchEvent(event);
    return event.defaultPrevented;
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


@pytest.mark.parametrize("target", ["#form", "#scan", "#question", "body"])
async def test_a_file_may_be_dropped_anywhere(api: ApiServer, visit: Visit, uploads: Path, target: str) -> None:
    assert await visit.page.evaluate(DROP, ["file", "dropped", target])
    await expect(visit.page.locator("#chosen-name")).to_have_text("cup.jpg")
    await expect(visit.page.locator("#notice")).to_be_hidden()
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    assert uploaded(uploads, claim) == b"dropped"


@pytest.mark.parametrize(("target", "words"), [("body", ""), ("#image-url", "image.png"), ("#question", "")])
async def test_a_picture_may_be_pasted(api: ApiServer, visit: Visit, uploads: Path, target: str, words: str) -> None:
    assert await visit.page.evaluate(PASTE, [words, target])
    await expect(visit.page.locator("#chosen-part")).to_be_visible()
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    assert image_key_of(claim).endswith(".png")
    assert uploaded(uploads, claim) == b"pasted"


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
