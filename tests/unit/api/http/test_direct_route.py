"""A direct route takes, refuses and describes what FastAPI's own would."""

from typing import Annotated

import httpx
import orjson
import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from api.app import build_app
from api.http import direct_route, openapi
from api.http.direct_route import DirectRoute
from api.settings import ApiSettings
from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings

JSON = "application/json"
DEEP = "[" * 100_000


class Cup(BaseModel):
    name: str = Field(min_length=2)
    size: int = 1


async def _given(request: Request) -> str:
    return str(request.app.title)


async def pour(
    place: int,
    body: Cup,
    request: Request,
    given: Annotated[str, Depends(_given)],
    level: Annotated[float, Query(ge=0)],
    unit: Annotated[str, Query()] = "ml",
    user_agent: Annotated[str, Header()] = "",
    key: Annotated[str | None, Header(alias="X-Key", pattern="^[a-z]+$")] = None,
) -> Response:
    """Pour."""
    return JSONResponse([place, body.model_dump(), request.method, given, level, unit, user_agent, key])


async def look(name: str = "all") -> Response:
    return JSONResponse(name)


def served(*, directly: bool) -> FastAPI:
    router = openapi.router("/cups", "cups")
    if directly:
        direct_route.add(router, "POST", "/{place}/pour", status_code=202)(pour)
        direct_route.add(router, "GET", "/look")(look)
    else:
        router.post("/{place}/pour", status_code=202)(pour)
        router.get("/look")(look)
    app = FastAPI(title="Cups")
    app.router.routes += router.routes

    async def refuse(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        seen = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
        return JSONResponse(seen, 422)

    app.add_exception_handler(RequestValidationError, refuse)
    return app


@pytest.fixture
def apps() -> tuple[FastAPI, FastAPI]:
    return served(directly=False), served(directly=True)


async def answer(app: FastAPI, method: str, path: str, **request: object) -> tuple[int, object]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.request(method, path, **request)  # type: ignore[arg-type]
        return reply.status_code, reply.json()


GOOD = orjson.dumps({"name": "mug", "size": "3", "colour": "red"})


@pytest.mark.parametrize(
    ("path", "headers", "content", "status"),
    [
        ("/cups/1/pour?level=0.5", {"Content-Type": JSON}, GOOD, 200),
        ("/cups/1/pour?level=0.5&unit=l&unit=cl", {"Content-Type": f"{JSON}; charset=utf-8"}, GOOD, 200),
        ("/cups/1/pour?level=0.5", {"Content-Type": "Application/Problem+JSON", "X-Key": "abc"}, GOOD, 200),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, b"\xef\xbb\xbf" + GOOD, 200),
        ("/cups/x/pour?level=-1", {"Content-Type": JSON, "X-Key": "A1"}, b'{"size": 1.5}', 422),
        ("/cups/1/pour", {"Content-Type": JSON}, GOOD, 422),
        ("/cups/1/pour?level=", {"Content-Type": JSON}, GOOD, 422),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, b"", 422),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, b"null", 422),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, b"[]", 422),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, b'{"name": "mug"', 422),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, b'{"name": "\\ud800\\ud800"}', 422),
        ("/cups/1/pour?level=1", {"Content-Type": "text/plain"}, GOOD, 422),
        ("/cups/1/pour?level=1", {}, GOOD, 422),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, b'{"name": "\xff\xfe"}', 400),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, b'{"size": ' + b"9" * 5000 + b"}", 400),
        ("/cups/1/pour?level=1", {"Content-Type": JSON}, DEEP.encode(), 400),
    ],
)
async def test_a_request_is_taken_or_refused_as_by_fastapi(
    apps: tuple[FastAPI, FastAPI], path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    usual, ours = [await answer(app, "POST", path, headers=headers, content=content) for app in apps]
    assert ours[0] == usual[0] == status
    if status != 400:
        assert ours == usual


async def test_defaults_and_methods_are_as_fastapis(apps: tuple[FastAPI, FastAPI]) -> None:
    for method, path in (
        ("GET", "/cups/look"),
        ("GET", "/cups/look?name=mug"),
        ("PUT", "/cups/look"),
        ("GET", "/cups"),
    ):
        usual, ours = [await answer(app, method, path) for app in apps]
        assert ours == usual


def test_the_description_is_fastapis(apps: tuple[FastAPI, FastAPI]) -> None:
    usual, ours = [app.openapi() for app in apps]
    assert ours == usual
    assert ours["paths"]["/cups/{place}/pour"]["post"]["tags"] == ["cups"]


def test_what_it_cannot_give_is_refused_when_the_application_is_built() -> None:
    async def with_cookie(session: Annotated[str, Cookie()]) -> Response:
        return JSONResponse(session)

    async def with_two_bodies(first: Cup, second: Cup) -> Response:
        return JSONResponse([first.name, second.name])

    for endpoint in (with_cookie, with_two_bodies):
        with pytest.raises(TypeError, match=endpoint.__name__):
            direct_route.add(APIRouter(), "POST", "/")(endpoint)


def test_only_submits_jobs_and_their_streams_are_served_directly() -> None:
    app = build_app(
        ApiSettings.model_validate({}), JobsSettings.model_validate({}), PipelineSettings.model_validate({})
    )
    assert {route.path.removeprefix("/api/v1") for route in app.routes if isinstance(route, DirectRoute)} == {
        "/scan",
        "/scan/{job_id}",
        "/scan/{job_id}/result",
        "/scan/{job_id}/events",
        "/chat/messages",
        "/chat/{job_id}",
        "/chat/{job_id}/result",
        "/chat/{job_id}/events",
    }
