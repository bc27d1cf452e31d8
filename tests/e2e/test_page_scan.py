"""The page at / in a real Chromium: a scan from its request to its end, while the test plays the worker.

Asserts on codes, states and data, never on the page's sentences. So do the other tests of the page.
"""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from jobs.model import JobStatus
from pipeline.types import Locale, Stage
from tests.support.api_server import ApiServer, first_claim
from tests.support.browser import PHOTO, SHOWN_STAGES, Visit
from tests.support.jobs import completed, new_job, result, started
from tests.support.played_worker import job_error, result_saying, run_to_end

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
    await run_to_end(api.services.ledger, claim, result())
    await expect(visit.page.locator("#model")).to_have_text("local/test")
    await expect(visit.page.locator("#local-note")).to_be_visible()
    await expect(visit.page.locator("#degraded-note")).to_be_hidden()
    await expect(visit.page.locator("#version")).to_have_text(api.services.knowledge.version)
    await expect(visit.page.locator('[data-stage="vision"] .seconds')).to_contain_text("0.5")


async def test_a_degraded_result_says_so(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await run_to_end(api.services.ledger, claim, result_saying("와인병", degraded=True))
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
    await api.services.ledger.claims.fail(claim, job_error(claim), Stage.FETCH)
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
    await api.services.ledger.claims.fail(first, job_error(first), Stage.FETCH)
    await visit.page.click("#retry")
    second = await first_claim(api.services.ledger)
    assert second.job_id != first.job_id
    assert second.input == first.input
    await run_to_end(api.services.ledger, second, result())
    await visit.ends("completed")
    await expect(visit.page.locator("#failure")).to_be_hidden()


async def test_a_job_that_would_fail_again_offers_no_retry(api: ApiServer, visit: Visit) -> None:
    await visit.submit()
    claim = await first_claim(api.services.ledger)
    await api.services.ledger.claims.fail(claim, job_error(claim, "source.corrupt_image", retryable=False), Stage.FETCH)
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


async def test_the_outcome_takes_the_focus_from_the_button(api: ApiServer, visit: Visit) -> None:
    await visit.page.fill("#image-url", PHOTO)
    await visit.page.click("#submit")
    claim = await first_claim(api.services.ledger)
    await run_to_end(api.services.ledger, claim, result())
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
