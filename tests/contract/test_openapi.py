"""The API's description of itself is sound; that it is the one reviewed last is asserted with the other documents."""

import json
from typing import Any

from cli.docs import openapi


def description() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(openapi())
    return document


def test_every_reference_leads_somewhere() -> None:
    document = description()
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    named = {part.split('"', maxsplit=1)[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named <= set(schemas)


def test_every_refusal_is_described_as_a_problem() -> None:
    for path, operations in description()["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if status >= "400" and path != "/readyz":
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)
