"""Uploading the photo: unchanged, with its progress, cancelled, refused, and tried again."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from pipeline.storage import LinkExpired, LocalStore
from pipeline.types import Locale, Stage
from tests.support.api_server import ApiServer, first_claim
from tests.support.browser import SHOWN_STAGES, Visit
from tests.support.jobs import result
from tests.support.played_worker import content, image_key_of, job_error, run_to_end, uploaded

SCAN = "/api/v1/scan"
IMAGES = "/api/v1/images/scan"
UPLOADS = "**/api/v1/images/uploads/**"

pytestmark = pytest.mark.asyncio(loop_scope="session")


DROP_FILE = """([name, type, bytes]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""


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
    assert uploaded(uploads, claim) == content(photo)
    await visit.has_asked(("POST", IMAGES), ("PUT", "/api/v1/images"), ("POST", SCAN))
    announced, sent, _ = (request for request in visit.requests if request.method in {"POST", "PUT"})
    assert json.loads(announced.post_data or "") == {"filename": photo.name, "content_type": "image/jpeg"}
    assert sent.headers["content-type"] == "image/jpeg"
    assert "idempotency-key" not in sent.headers

    await visit.shows(Stage.QUEUED, "started")
    assert await visit.stages() == ["completed", "started", *["waiting"] * 5]
    shown = [await item.get_attribute("data-stage") for item in await visit.page.locator("#stages > li").all()]
    assert shown == ["upload", *SHOWN_STAGES]
    await run_to_end(api.services.ledger, claim, result())
    await visit.ends("completed")
    assert await visit.stages() == ["completed"] * 7
    await expect(visit.page.locator("#cached-note")).to_be_hidden()


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
    assert uploaded(uploads, claim) == content(photo)
    await session.detach()


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
    assert uploaded(uploads, claim) == content(photo)


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
    assert image_key_of(claim).endswith(f".{extension.lower()}")
    assert uploaded(uploads, claim) == bytes([0, 255, 128])


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
    assert uploaded(uploads, claim) == content(photo)
    await run_to_end(api.services.ledger, claim, result())
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
        assert image_key_of(claim) == keys[1] != keys[0]
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
    await ledger.claims.fail(first, job_error(first), Stage.FETCH)
    await visit.page.click("#retry")
    second = await first_claim(ledger)
    assert second.job_id != first.job_id
    assert image_key_of(second) == image_key_of(first)
    await visit.has_asked(("POST", IMAGES), ("PUT", "/api/v1/images"), *[("POST", SCAN)] * 3)


async def test_an_answer_that_is_used_again_says_so(api: ApiServer, visit: Visit, photo: Path) -> None:
    await visit.upload(photo)
    claim = await first_claim(api.services.ledger)
    await run_to_end(api.services.ledger, claim, result().model_copy(update={"cached": True}))
    await visit.ends("completed")
    await expect(visit.page.locator("#cached-note")).to_be_visible()
