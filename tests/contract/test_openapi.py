"""The API's description of itself is the one reviewed last: `make openapi` writes it anew."""

import json
from pathlib import Path
from typing import Any

from api.app import build_app
from api.settings import ApiSettings
from pipeline.settings import PipelineSettings
from workers.jobs.settings import JobsSettings

SNAPSHOT = Path(__file__).with_name("openapi.json")


def description() -> dict[str, Any]:
    app = build_app(
        ApiSettings.model_validate({}), JobsSettings.model_validate({}), PipelineSettings.model_validate({})
    )
    return app.openapi()


def as_text(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def test_the_description_is_the_one_reviewed_last() -> None:
    assert as_text(description()) == SNAPSHOT.read_text()


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


if __name__ == "__main__":
    SNAPSHOT.write_text(as_text(description()))
