"""Routes that FastAPI describes and checks, and that are served without the rest of its machinery.

That machinery closes dependencies, parses forms and validates answers; our routes need none of it. It takes a third of
the CPU of a submit, and a fifth of the memory of an event stream (`benchmarks/README.md`). So submits, jobs and event
streams are direct routes; all others are FastAPI's own.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

ABSENT: Any = object()

_Dependency = Callable[[Request], Awaitable[object]]
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Awaitable[Response]])


def add(router: APIRouter, method: str, path: str, **options: Any) -> Callable[[_Endpoint], _Endpoint]:
    """Decorator: as `router.get(path, …)` and its siblings, but for a direct route. `options` are FastAPI's."""

    def register(endpoint: _Endpoint) -> _Endpoint:
        router.add_api_route(path, endpoint, methods=[method], route_class_override=DirectRoute, **options)
        return endpoint

    return register


class DirectRoute(APIRoute):
    """A route whose endpoint is a coroutine function that returns a Response.

    The endpoint may declare parameters in path, query and header, one model as the body, the Request, and dependencies
    that take the Request; anything else raises TypeError. Mistakes are reported as FastAPI reports them.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        declared = self.dependant
        if (
            declared.cookie_params
            or len(declared.body_params) > 1
            or any(each.dependencies for each in declared.dependencies)
        ):
            raise TypeError(f"{self.name} declares a parameter that a DirectRoute does not support")
        sources = {"path": declared.path_params, "query": declared.query_params, "header": declared.header_params}
        self._parameters = [(source, field.alias, field) for source, fields in sources.items() for field in fields]
        self._body = next(iter(declared.body_params), None)
        self._dependencies = [(str(each.name), cast("_Dependency", each.call)) for each in declared.dependencies]
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive, send))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Any:
        """A function of its own, so that the request is freed before the answer is sent: a stream lasts minutes."""
        values = {"path": request.path_params, "query": request.query_params, "header": request.headers}
        arguments: dict[str, Any] = {}
        mistakes: list[Any] = []
        for source, alias, field in self._parameters:
            arguments[field.name] = _checked(field, values[source].get(alias, ABSENT), (source, alias), mistakes)
        if self._body is not None:
            arguments[self._body.name] = _checked(self._body, await _body(request), ("body",), mistakes)
        if mistakes:
            raise RequestValidationError(mistakes)
        for name, dependency in self._dependencies:
            arguments[name] = await dependency(request)
        if self.dependant.request_param_name:
            arguments[self.dependant.request_param_name] = request
        return await self.endpoint(**arguments)


def _checked(field: Any, value: Any, location: tuple[str, ...], mistakes: list[Any]) -> Any:
    """The validated value; errors are appended to `mistakes`."""
    if value is ABSENT:
        if field.field_info.is_required():
            mistakes.append({"type": "missing", "loc": location, "msg": "Field required", "input": None})
        return field.default
    checked, found = field.validate(value, loc=location)
    mistakes += found
    return checked


async def _body(request: Request) -> Any:
    """The parsed JSON, or the raw bytes of another content type, which no model accepts."""
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
