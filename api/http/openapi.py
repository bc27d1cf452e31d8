"""The OpenAPI description: FastAPI's own, plus the problem details that our exception handlers send."""

from enum import Enum
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from api.http.problems import MEDIA_TYPE
from api.schemas.errors import ProblemView
from api.schemas.jobs import EventView
from jobs.model import JobKind
from jobs.view import TokenView
from pipeline.types import Stage

PROBLEM = {"schema": {"$ref": "#/components/schemas/ProblemView"}}


def _event(names: list[str], view: str, *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["event", *required, "data"],
        "properties": {
            "event": {"enum": names},
            "id": {"type": "string", "pattern": "^[0-9]+$"},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": f"#/components/schemas/{view}"},
            },
        },
    }


STEP = _event([str(stage) for stage in Stage], "EventView", "id")
TOKEN = _event(["token"], "TokenView")

EVENTS: dict[JobKind, dict[str, Any]] = {
    JobKind.SCAN: {"schema": STEP},
    JobKind.CHAT: {"schema": {"anyOf": [STEP, TOKEN]}},
}
"""The schema of one event; OpenAPI 3.1 cannot describe a stream of several."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Entries of `responses` for the statuses of problems."""
    return {status: {"description": "Problem", "content": {MEDIA_TYPE: PROBLEM}} for status in statuses}


def ok(model: Any, description: str) -> dict[str, Any]:
    """An entry of `responses` for an answer that is a `Response` of ours; `model` is a type, as FastAPI takes it."""
    return {"model": model, "description": description}


def router(prefix: str = "", *tags: str | Enum) -> APIRouter:
    """A router whose operation ids are the names of its routes."""
    return APIRouter(prefix=prefix, tags=list(tags), generate_unique_id_function=lambda route: route.name)


def install(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def _describe(app: FastAPI) -> dict[str, Any]:
    description = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        webhooks=app.webhooks.routes,
    )
    schemas = description["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (ProblemView, EventView, TokenView):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    for operations in description["paths"].values():
        for operation in operations.values():
            _describe_refusals(operation["responses"])
    for operations in description["webhooks"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own; a webhook is answered by its receiver.
    return description


def _describe_refusals(responses: dict[str, Any]) -> None:
    """FastAPI adds its own shape for 422 wherever there is a parameter; our handler answers with a problem."""
    invalid = responses.get("422", {}).get("content", {})
    if "application/json" in invalid:
        responses["422"] = {"description": "Problem", "content": {MEDIA_TYPE: PROBLEM}}
