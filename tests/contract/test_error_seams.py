"""Guarded HTTP has errors of its own: each caller translates all of them, and no room reuses another's."""

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.deliveries import AttemptError
from kit.address import AddressGuard
from kit.errors import ConnectTimeout, HostNotFound, HttpError, ReadTimeout, Unreachable, UnsafeUrl
from kit.http import Lookup
from pipeline.errors import PipelineError
from pipeline.intake.fetch import Fetcher
from pipeline.settings import PipelineSettings
from workers.webhooks.sender import WebhookSender

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("kit", "pipeline", "jobs", "workers", "api", "client", "cli")
URL = "http://photos.example.com/a.jpg"
GUARD = AddressGuard("", (80,))

TRANSLATIONS: dict[type[HttpError], tuple[str, AttemptError]] = {
    UnsafeUrl: ("source.url_unsafe", AttemptError.UNSAFE_ADDRESS),
    HostNotFound: ("source.not_found", AttemptError.UNREACHABLE),
    ConnectTimeout: ("source.timeout", AttemptError.TIMEOUT),
    ReadTimeout: ("source.timeout", AttemptError.TIMEOUT),
    Unreachable: ("source.unreachable", AttemptError.UNREACHABLE),
}


def leaves(kind: type[HttpError]) -> list[type[HttpError]]:
    return [leaf for each in kind.__subclasses__() for leaf in leaves(each)] or [kind]


def failing(kind: type[HttpError]) -> Lookup:
    def lookup(_host: str, _port: int) -> list[str]:
        raise kind("meant")

    return lookup


@pytest.mark.parametrize("kind", leaves(HttpError))
async def test_a_photo_fetch_translates_every_error_of_guarded_http(kind: type[HttpError]) -> None:
    fetcher = Fetcher(PipelineSettings.model_validate({}), GUARD, lookup=failing(kind))
    with pytest.raises(PipelineError) as refused:
        await fetcher.fetch(URL)
    assert (refused.value.spec.code, refused.value.detail) == (TRANSLATIONS[kind][0], "meant")
    assert type(refused.value.__cause__) is kind
    await fetcher.close()


@pytest.mark.parametrize("kind", leaves(HttpError))
async def test_a_webhook_translates_every_error_of_guarded_http(kind: type[HttpError]) -> None:
    sender = WebhookSender(GUARD, (), lookup=failing(kind))
    assert (await sender.send(URL, "id", b"{}", datetime.now(UTC))).error is TRANSLATIONS[kind][1]
    await sender.close()


# --- Who catches whose errors ---

SOURCE_ERRORS = {kind.__name__ for kind in PipelineError.__subclasses__() if kind.spec.code.startswith("source.")}


def caught(source: str) -> Iterator[str]:
    """Names in `except`, in class patterns, and in calls of `isinstance` and `suppress`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ExceptHandler(type=ast.expr() as kinds) | ast.MatchClass(cls=kinds):
                yield from _names(kinds)
            case ast.Call(func=ast.Name(id="isinstance" | "suppress") | ast.Attribute(attr="suppress")):
                for argument in node.args:
                    yield from _names(argument)


def _names(node: ast.expr) -> Iterator[str]:
    for each in ast.walk(node):
        match each:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name


@pytest.mark.parametrize(
    "handler",
    [
        "try: ...\nexcept SourceTimeout: ...",
        "try: ...\nexcept (OSError, errors.SourceTimeout) as error: ...",
        "with suppress(SourceTimeout): ...",
        "with contextlib.suppress(OSError, SourceTimeout): ...",
        "if isinstance(error, SourceTimeout): ...",
        "match error:\n    case SourceTimeout(): ...",
    ],
)
def test_a_handler_is_seen_however_it_is_written(handler: str) -> None:
    assert SOURCE_ERRORS & set(caught(handler)) == {"SourceTimeout"}


def test_source_errors_are_caught_by_photo_intake_only() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    catching = {str(path.relative_to(ROOT)) for path in files if SOURCE_ERRORS & set(caught(path.read_text()))}
    assert {path for path in catching if not path.startswith("pipeline/intake/")} == set()
