"""The api's own codes and their texts."""

import pytest

from api.http.problems import ALL_CODES, API_CATALOGUE, HTTP_CODES, REFUSALS, Problem, as_problem
from jobs.errors import IdempotencyMismatch, LedgerUnavailable, QueueUnavailable
from pipeline.errors import CATALOGUE, SourceUrlUnsafe
from pipeline.knowledge.texts import Texts
from pipeline.settings import RESOURCES
from pipeline.storage import LinkExpired, LinkRefused
from pipeline.types import Locale

RAISED: list[tuple[Exception, str]] = [
    (Problem("job.finished"), "job.finished"),
    (SourceUrlUnsafe("secret detail"), "source.url_unsafe"),
    (IdempotencyMismatch(), "idempotency.mismatch"),
    (LedgerUnavailable("secret detail"), "queue.unavailable"),
    (QueueUnavailable("secret detail"), "queue.unavailable"),
    (LinkExpired(), "upload.expired"),
    (LinkRefused(), "upload.refused"),
]


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("code", ALL_CODES)
def test_every_code_has_a_text_in_every_language(code: str, locale: Locale) -> None:
    text = Texts.load(RESOURCES).error(code, locale)
    assert text.title
    assert text.message
    assert text.advice


def test_the_apis_codes_are_none_of_the_pipelines() -> None:
    assert not set(API_CATALOGUE) & set(CATALOGUE)


def test_no_code_answers_as_if_the_client_were_logged_out() -> None:
    assert not {spec.status for spec in ALL_CODES.values()} & {401, 403}


def test_codes_of_the_framework_have_its_status() -> None:
    assert all(ALL_CODES[code].status == status for status, code in HTTP_CODES.items())


@pytest.mark.parametrize(("error", "code"), RAISED)
def test_what_a_route_raises_becomes_its_code_without_the_detail(error: Exception, code: str) -> None:
    problem = as_problem(error)
    assert problem.code == code
    assert "secret" not in repr(problem.fields)


def test_every_kind_of_refusal_is_tried_above() -> None:
    assert all(any(isinstance(error, kind) for error, _ in RAISED) for kind in REFUSALS)
