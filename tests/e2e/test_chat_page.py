"""The page's tab for questions in words, in a real Chromium, on the real processes of `bunri up`.

Asserts on codes, states and data, never on the page's sentences.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from playwright.async_api import Request as Posted

from kit.text import clean
from tests.support.browser import Visit, new_tab, opened
from tests.support.bunri import ROOT, RunningBunri, running_bunri
from tests.support.image_server import Answer, ImageServer, Request, reply
from tests.support.injections import SHORT
from tests.support.openai_server import PROSE, base_url, openai_server, purpose_of, streamed, well_behaved
from tests.support.relay import relay

CHAT = "/api/v1/chat/messages"
EXPIRED = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&X-Amz-Signature=secret"
WORDS = [f"낱말{n} " for n in range(40)]
A_PAGE = 7_000
"""Letters of injections in one answer: a little less than an answer may have."""

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBunri]:
    """Without a key: questions are answered by the local model."""
    with running_bunri(tmp_path_factory.mktemp("local") / "data") as up:
        yield up


@pytest.fixture(scope="module")
def _model() -> Iterator[ImageServer]:
    with openai_server() as server:
        server.on("/glass.jpg", reply(200, (ROOT / "samples/glass-1.jpg").read_bytes()))
        server.on("/old.jpg", reply(403))
        yield server


@pytest.fixture(scope="module")
def hosted(_model: ImageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBunri]:
    env = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": base_url(_model), "FETCH_ALLOW": "127.0.0.1"}
    with running_bunri(tmp_path_factory.mktemp("hosted") / "data", env=env) as up:
        yield up


@pytest.fixture
def model(_model: ImageServer) -> ImageServer:
    """Well-behaved, and not yet asked for anything."""
    _model.fallback = well_behaved
    _model.requests.clear()
    return _model


@pytest_asyncio.fixture(loop_scope="session")
async def visit_local(local: RunningBunri, tab: Page) -> AsyncIterator[Visit]:
    async for visit in visited(local.api, tab):
        yield visit


@pytest_asyncio.fixture(loop_scope="session")
async def visit(hosted: RunningBunri, tab: Page) -> AsyncIterator[Visit]:
    async for visit in visited(hosted.api, tab):
        yield visit


async def visited(origin: str, tab: Page) -> AsyncIterator[Visit]:
    """The page, with its tab for questions open. Afterwards: no console error, and no request left the origin."""
    visit = await opened(origin, tab)
    await visit.page.click("#tab-chat")
    yield visit
    await visit.leave()
    assert visit.unexpected == []
    assert visit.foreign == []


async def ask(visit: Visit, message: str) -> None:
    await visit.page.fill("#message", message)
    await visit.page.press("#message", "Enter")


async def ends(visit: Visit, outcome: str) -> None:
    await expect(visit.page.locator("#chat")).to_have_attribute("data-outcome", outcome)


def body_of(request: Posted) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.post_data or "")
    return body


async def answer_of(visit: Visit) -> str:
    return await visit.page.locator("#chat-answer").text_content() or ""


def writing(words: Iterable[str], pause: float = 0.0) -> Callable[[Request], Answer]:
    """A model that is well-behaved, and answers with these words."""

    def answer(request: Request) -> Answer:
        return streamed(words, pause=pause) if purpose_of(request) == "chat" else well_behaved(request)

    return answer


async def test_a_question_about_several_things_is_answered_by_the_local_model(visit_local: Visit) -> None:
    visit, page = visit_local, visit_local.page
    await ask(visit, "깨진 유리컵이랑\n라벨 붙은 소주병")
    await ends(visit, "completed")
    await expect(page.locator("#chat-model")).to_have_text("local/words")
    assert await visit.texts("#chat-asked") == ["깨진 유리컵이랑\n라벨 붙은 소주병"]
    assert await visit.texts("#chat-things .name") == ["불연성종량제폐기물", "유리병"]
    assert len(await visit.texts("#chat-things .value")) == 2
    assert (await answer_of(visit)).count("\n") >= 2
    assert await page.locator("#chat-answer").evaluate("(answer) => getComputedStyle(answer).whiteSpace") == "pre-line"
    await expect(page.locator("#chat-local-note")).to_be_visible()
    await expect(page.locator("#chat-degraded-note")).to_be_hidden()
    assert visit.asked == [("POST", CHAT)]
    [posted] = [request for request in visit.requests if request.method == "POST"]
    assert posted.headers["prefer"] == "respond-async"
    assert body_of(posted)["message"] == "깨진 유리컵이랑\n라벨 붙은 소주병"


async def test_what_is_no_waste_is_an_answer_about_nothing(visit_local: Visit) -> None:
    await ask(visit_local, "오늘 날씨 어때?")
    await ends(visit_local, "completed")
    assert await answer_of(visit_local)
    await expect(visit_local.page.locator("#chat-things-part")).to_be_hidden()
    await expect(visit_local.page.locator("#chat-failure")).to_be_hidden()


async def test_the_answer_is_shown_while_it_is_written(visit: Visit, model: ImageServer) -> None:
    model.fallback = writing(WORDS, pause=0.1)
    answer = visit.page.locator("#chat-answer")
    await ask(visit, "유리병")
    await expect(answer).to_contain_text("낱말5")
    await ends(visit, "running")
    await expect(answer).to_have_attribute("aria-busy", "true")
    await expect(answer).to_have_attribute("aria-live", "polite")
    assert "낱말39" not in await answer_of(visit)
    await ends(visit, "completed")
    await expect(answer).to_have_attribute("aria-busy", "false")
    assert await answer_of(visit) == "".join(WORDS).strip()


async def test_a_stream_that_is_cut_goes_on_with_nothing_lost_or_twice(
    hosted: RunningBunri, tab: Page, model: ImageServer
) -> None:
    model.fallback = writing(WORDS, pause=0.15)
    port = httpx.URL(hosted.api).port
    assert port
    async with relay(port) as wire:
        async for visit in visited(f"http://127.0.0.1:{wire.port}", tab):
            visit.broken.append("/events")
            await visit.page.evaluate(
                """() => {
                    window.shown = [];
                    const answer = document.querySelector("#chat-answer");
                    const note = () => window.shown.push(answer.textContent);
                    new MutationObserver(note).observe(answer, { childList: true });
                }"""
            )
            await ask(visit, "유리병")
            await expect(visit.page.locator("#chat-answer")).to_contain_text("낱말3")
            assert wire.reset() > 0
            await ends(visit, "completed")
            whole = "".join(WORDS).strip()
            assert await answer_of(visit) == whole
            shown = await visit.page.evaluate("window.shown")
            assert [text for text in shown if not whole.startswith(text)] == []
            streams = [request for request in visit.requests if request.url.endswith("/events")]
            assert len(streams) >= 2
            assert not [request for request in visit.requests if request.url.endswith("/result")]


async def test_a_text_that_is_begun_again_replaces_what_was_shown(visit: Visit, model: ImageServer) -> None:
    cut = iter([streamed(["버려질 ", "글 "], pause=0.5, last=None)])

    def once(request: Request) -> Answer:
        is_chat = purpose_of(request) == "chat"
        return next(cut, streamed(PROSE, pause=0.1)) if is_chat else well_behaved(request)

    model.fallback = once
    await ask(visit, "유리병")
    await expect(visit.page.locator("#chat-answer")).to_contain_text("버려질")
    await ends(visit, "completed")
    assert await answer_of(visit) == "".join(PROSE)


async def test_a_question_about_an_uploaded_photo(visit: Visit, model: ImageServer, samples: Path) -> None:
    await visit.page.click("#attach > summary")
    await visit.choose(samples / "glass-1.jpg")
    await expect(visit.page.locator("#preview")).to_be_visible()
    await ask(visit, "이건 어떻게 버려요?")
    await ends(visit, "completed")
    assert await visit.texts("#chat-things .name") == ["유리병"]
    assert [purpose_of(request) for request in model.requests] == ["vision", "chat"]
    assert [path for _, path in visit.asked] == ["/api/v1/images/chat", "/api/v1/images", CHAT]


async def test_a_question_about_the_photo_behind_a_link_needs_no_words(visit: Visit, model: ImageServer) -> None:
    await visit.page.click("#attach > summary")
    await visit.page.fill("#image-url", model.url("/glass.jpg"))
    await visit.page.press("#image-url", "Enter")
    await ends(visit, "completed")
    await expect(visit.page.locator("#chat-asked")).to_be_hidden()
    assert [purpose_of(each) for each in model.requests if urlsplit(each.target).path != "/glass.jpg"] == [
        "vision",
        "chat",
    ]


async def test_an_expired_link_is_a_typed_failure(visit: Visit, model: ImageServer) -> None:
    visit.broken.append("/old.jpg")
    await visit.page.click("#attach > summary")
    await visit.page.fill("#image-url", model.url(f"/old.jpg{EXPIRED}"))
    await ask(visit, "이건요?")
    await ends(visit, "failed")
    failure = visit.page.locator("#chat-failure")
    await expect(failure).to_have_attribute("data-code", "source.url_expired")
    await expect(visit.page.locator("#chat-failure-code")).to_have_text("source.url_expired")
    assert await visit.texts("#chat-failure-message") != [""]
    await expect(visit.page.locator("#chat-answer")).to_be_hidden()
    await expect(visit.page.locator("#chat-result")).to_be_hidden()
    await visit.page.fill("#image-url", "")
    await ask(visit, "유리병")
    await ends(visit, "completed")
    await expect(failure).to_be_hidden()


async def test_cancel_ends_the_job_and_takes_the_half_answer_away(visit: Visit, model: ImageServer) -> None:
    model.fallback = writing(WORDS, pause=0.3)
    await ask(visit, "유리병")
    await expect(visit.page.locator("#chat-answer")).to_contain_text("낱말1")
    await visit.page.click("#chat-cancel")
    await ends(visit, "cancelled")
    await expect(visit.page.locator("#chat-answer")).to_be_hidden()
    await expect(visit.page.locator("#chat-cancel")).to_be_hidden()


async def test_an_example_is_a_question_to_send(visit: Visit, model: ImageServer) -> None:
    example = visit.page.locator("[data-example]").first
    words = await example.text_content()
    await example.click()
    await expect(visit.page.locator("#message")).to_have_value(words or "")
    await visit.page.keyboard.press("Enter")
    await ends(visit, "completed")
    assert model.requests


async def test_the_language_switch_reaches_a_question_and_not_its_answer(visit: Visit, model: ImageServer) -> None:
    texts = "#panel-chat [data-text], #tabs [data-text], #chat-status"
    model.fallback = writing(PROSE)
    await ask(visit, "유리병")
    await ends(visit, "completed")
    korean = await visit.texts(texts)
    await visit.page.click('[data-locale="en"]')
    assert [text for text in await visit.texts(texts) if text and text in korean] == []
    assert await answer_of(visit) == "".join(PROSE)
    await expect(visit.page.locator("#chat-answer")).to_have_attribute("lang", "ko")
    await ask(visit, "glass bottle")
    await expect(visit.page.locator("#chat-answer")).to_have_attribute("lang", "en")
    assert [body_of(request)["locale"] for request in visit.requests if request.method == "POST"] == ["ko", "en"]


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
async def test_nothing_scrolls_sideways_on_a_phone(
    hosted: RunningBunri, browser: Browser, samples: Path, model: ImageServer, locale: str
) -> None:
    width = "document.documentElement.scrollWidth"
    phone = {"locale": locale, "viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    model.fallback = writing(["w" * 400, "\n", "유리병 " * 50])
    async with new_tab(browser, **phone) as tab:
        async for visit in visited(hosted.api, tab):
            assert await visit.page.evaluate(width) == 360
            await visit.page.click("#attach > summary")
            await visit.choose(samples / "glass-1.jpg")
            await ask(visit, "q" * 300)
            await ends(visit, "completed")
            await expect(visit.page.locator("#chat-model-part")).to_be_visible()
            assert await visit.page.evaluate(width) == 360
            await visit.page.click("#tab-scan")
            assert await visit.page.evaluate(width) == 360


def pages() -> list[str]:
    """The injections, as few answers as have room for them."""
    texts, answers = iter([each.text for each in SHORT]), [""]
    while text := next(texts, None):
        if len(answers[-1]) + len(text) > A_PAGE:
            answers.append("")
        answers[-1] += f"{text}\n"
    return answers


@pytest.mark.parametrize("answer", pages(), ids=lambda answer: f"{len(answer)} letters")
async def test_no_injection_is_more_than_words_in_an_answer(visit: Visit, model: ImageServer, answer: str) -> None:
    pieces = [answer[at : at + 100] for at in range(0, len(answer), 100)]
    model.fallback = writing(pieces, pause=0.02)
    await ask(visit, answer[:2000])
    await ends(visit, "completed")
    assert await answer_of(visit) == clean(answer).strip()
    assert await visit.page.locator(":is(#chat-answer, #chat-asked) > *").count() == 0
    assert await visit.page.evaluate("window.pwned") is None
