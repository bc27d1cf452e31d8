"""What the page makes of a result: words of a model stay words, and the rule behind an answer can be read."""

import pytest
from playwright.async_api import expect

from kit.text import one_line
from pipeline.types import AnswerForm
from tests.support.api_server import ApiServer, first_claim
from tests.support.browser import Visit
from tests.support.injections import INJECTIONS
from tests.support.played_worker import HOSTILE, result_saying, result_with_rule, run_to_end

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("words", [HOSTILE, '"&lt;b&gt;"', "<b>굵게</b>"], ids=["script", "entities", "tags"])
async def test_hostile_words_of_a_model_stay_words(api: ApiServer, visit: Visit, words: str) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await run_to_end(api.services.ledger, claim, result_saying(words))
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
    said = result_saying(HOSTILE)
    answer = said.answer.model_copy(update={"disposal_steps": tuple(texts), "user_answer": "\n".join(texts)})
    await run_to_end(
        api.services.ledger, await first_claim(api.services.ledger), said.model_copy(update={"answer": answer})
    )
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
    await run_to_end(api.services.ledger, claim, result_saying("비워요", degraded=True))
    await expect(visit.page.locator("#chat-degraded-note")).to_be_visible()
    await expect(visit.page.locator("#chat-local-note")).to_be_hidden()
    await expect(visit.page.locator("#chat-things .value")).to_have_text("87%")


async def test_the_rule_behind_an_answer_opens_by_keyboard_and_names_its_source(api: ApiServer, visit: Visit) -> None:
    source = {"title": "지침", "url": "https://rules.example/"}
    document = {"title": "유리병", "cautions": [HOSTILE, "조심"], "not_this": ["거울"], "source": source}
    await visit.submit()
    await run_to_end(api.services.ledger, await first_claim(api.services.ledger), result_with_rule(document))
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
    await run_to_end(
        api.services.ledger,
        await first_claim(api.services.ledger),
        result_with_rule({"title": "유리병", "source": source}),
    )
    await visit.ends("completed")
    await expect(visit.page.locator("#source")).to_have_text("지침")
    assert await visit.page.locator("#source").get_attribute("href") is None


async def test_a_rule_without_more_to_say_offers_nothing_to_open(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    await run_to_end(api.services.ledger, await first_claim(api.services.ledger), result_with_rule({"title": "유리병"}))
    await visit.ends("completed")
    await expect(visit.page.locator("#rule-part")).to_be_hidden()
