"""Routes that FastAPI describes and checks, and that are served without the rest of its machinery.

That machinery is there for dependencies that must be closed, forms and answers to be validated, none of which we have:
a third of the CPU of a submit, and a fifth of the memory of an event stream (`benchmarks/README.md`).
"""

import json
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

ABSENT: Any = object()

_Dependency = Callable[[Request], Awaitable[object]]


def router(prefix: str = "", *tags: str | Enum) -> APIRouter:
    """Its routes go into the application's own list: an included router's are matched twice for each request."""
    return APIRouter(
        prefix=prefix, tags=list(tags), route_class=DirectRoute, generate_unique_id_function=lambda route: route.name
    )


class DirectRoute(APIRoute):
    """Its endpoint is a coroutine function that returns a Response.

    It may ask for parameters in path, query and header, one model as the body, the Request, and dependencies that take
    the Request. Mistakes are reported as FastAPI reports them.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        wanted = self.dependant
        if (
            wanted.cookie_params
            or len(wanted.body_params) > 1
            or any(each.dependencies for each in wanted.dependencies)
        ):
            raise TypeError(f"{self.name} asks for what a DirectRoute does not give")
        places = {"path": wanted.path_params, "query": wanted.query_params, "header": wanted.header_params}
        self._parameters = [(place, field.alias, field) for place, fields in places.items() for field in fields]
        self._body = next(iter(wanted.body_params), None)
        self._dependencies = [(str(each.name), cast("_Dependency", each.call)) for each in wanted.dependencies]
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive, send))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Any:
        """Apart, so that nothing of the request is kept while its answer is sent, which a stream takes minutes for."""
        given = {"path": request.path_params, "query": request.query_params, "header": request.headers}
        arguments: dict[str, Any] = {}
        mistakes: list[Any] = []
        for place, alias, field in self._parameters:
            arguments[field.name] = _checked(field, given[place].get(alias, ABSENT), (place, alias), mistakes)
        if self._body is not None:
            arguments[self._body.name] = _checked(self._body, await _body(request), ("body",), mistakes)
        if mistakes:
            raise RequestValidationError(mistakes)
        for name, dependency in self._dependencies:
            arguments[name] = await dependency(request)
        if self.dependant.request_param_name:
            arguments[self.dependant.request_param_name] = request
        return await self.endpoint(**arguments)


def _checked(field: Any, value: Any, place: tuple[str, ...], mistakes: list[Any]) -> Any:
    """The value as the endpoint takes it; what is wrong with it joins the mistakes."""
    if value is ABSENT:
        if field.field_info.is_required():
            mistakes.append({"type": "missing", "loc": place, "msg": "Field required", "input": None})
        return field.default
    checked, found = field.validate(value, loc=place)
    mistakes += found
    return checked


async def _body(request: Request) -> Any:
    """What the JSON says, or the bytes of what is not called JSON, which no model takes."""
    body = await request.body()
    if not body:
        return ABSENT
    if not _is_json(request.headers.get("content-type", "")):
        return body
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        mistake = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error", "input": {}}
        raise RequestValidationError([mistake]) from error
    except (ValueError, RecursionError) as error:  # No text, a number of too many digits, nested too deep.
        raise HTTPException(400) from error


def _is_json(content_type: str) -> bool:
    kind, _, subtype = content_type.partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))
