"""Documents that are made from the code: `make docs` writes them, a test finds those that are out of date."""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from pydantic import SecretStr

from api.app import build_app
from api.http.problems import API_CATALOGUE
from api.settings import ApiSettings
from cli.configuration import PACKAGES, masked, variable_of
from jobs.redis.keys import REDIS_KEYS
from jobs.settings import JobsSettings
from pipeline.errors import CATALOGUE, ErrorSpec
from pipeline.knowledge.texts import Texts
from pipeline.settings import RESOURCES, PipelineSettings
from pipeline.types import Locale

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"

TREE_PACKAGES = ("kit", "pipeline", "jobs", "workers", "api", "client", "cli")
TREE_START = "<!-- The tree is made by `make docs` from the docstrings. -->\n"
TREE_END = "<!-- End of the tree. -->"
MAX_COLUMNS = 120

MADE = "<!-- Made by `make docs` from the code; edit the code. -->\n"


def errors() -> str:
    """The catalogue with the texts that users read."""
    texts = Texts.load(RESOURCES)
    return "\n".join(
        [
            "# Errors",
            MADE,
            "Every failure has a code that stays the same; tests and clients look at the code, people read the text.",
            "The texts are data in `pipeline/resources/messages`, Korean and English; `/api/v1/errors` serves both.",
            "",
            "*HTTP* is the status when the failure answers a request directly; the resource of a failed job is 200",
            "with the error inside. *Tries* is how often a job may meet this error before it fails with it. *Blame*",
            "says who can do something about it; *alert* means that one of us must.",
            "",
            "## Why a job failed",
            "",
            *_table(CATALOGUE),
            "",
            "## Why the API refused a request",
            "",
            *_table(API_CATALOGUE),
            "",
            "## What users read",
            "",
            *_messages(texts, CATALOGUE | API_CATALOGUE),
        ]
    )


def settings() -> str:
    """Every variable of every package. Those of several packages are listed once."""
    rows: dict[str, str] = {}
    for package in PACKAGES:
        for name, field in package.model_fields.items():
            default = masked(field.get_default(call_default_factory=True, validated_data={})) or "–"
            if name == "resources":
                default = "pipeline/resources"
            variable = variable_of(package, name, field)
            rows.setdefault(variable, f"| `{variable}` | {_cell(default)} | {_cell(field.description or '')} |")
    return "\n".join(
        [
            "# Settings",
            MADE,
            "From the environment or a `.env` file in the working directory; an empty variable counts as not set.",
            "Times are in seconds, sizes in bytes. `bunri config` shows what is in force and all mistakes at once.",
            "",
            "| variable | default | meaning |",
            "|---|---|---|",
            *rows.values(),
            "",
        ]
    )


def env_example() -> str:
    """Every variable, commented out, with what it means and its default."""
    lines = [
        "# Made by `make docs` from the code. Copy to `.env` and uncomment what should differ from the default, which",
        "# is what stands here. Times are in seconds, sizes in bytes; an empty variable counts as not set.",
    ]
    seen = set()
    for package in PACKAGES:
        lines += ["", f"## {(package.__doc__ or package.__name__).splitlines()[0]}"]
        for name, field in package.model_fields.items():
            variable = variable_of(package, name, field)
            if variable not in seen:
                seen.add(variable)
                default = None if name == "resources" else field.get_default()
                lines += ["", f"# {field.description}", f"#{variable}={_dotenv(default)}"]
    lines += [
        "",
        "## docker compose only",
        "",
        "# Required: user and password of Flower's dashboard.",
        "#FLOWER_BASIC_AUTH=",
    ]
    return "\n".join(lines) + "\n"


def redis_keys() -> str:
    """Every key of the ledger's Redis."""
    rows = [
        f"| `{key.name}` | {key.type} | {key.ttl or f'permanent: {key.permanent}'} | {key.holds} | {key.written_by} |"
        for key in REDIS_KEYS
    ]
    return "\n".join(
        [
            "# Redis keys",
            MADE,
            "Every key in the ledger's Redis, from `jobs/redis/keys.py`. A key has a TTL, or is permanent for the",
            "reason given. Times are Unix seconds of the Redis server. *Written by* names scripts in `jobs/redis/lua`.",
            "Not listed are the broker's own keys: the queues `bunri.jobs` and `bunri.jobs.bulk`, and those of kombu.",
            "",
            "| key | type | TTL | holds | written by |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def openapi() -> str:
    """The API's description of itself."""
    app = build_app(
        ApiSettings.model_validate({}), JobsSettings.model_validate({}), PipelineSettings.model_validate({})
    )
    return json.dumps(app.openapi(), ensure_ascii=False, indent=2) + "\n"


def architecture() -> str:
    """ARCHITECTURE.md, written by hand but for its tree: each file with the first words of its docstring."""
    before, rest = (PROJECT / "ARCHITECTURE.md").read_text().split(TREE_START)
    lines = [line for package in TREE_PACKAGES for line in (*_room(PROJECT / package), "")]
    return "\n".join([f"{before}{TREE_START}", "```", *lines[:-1], f"```\n{TREE_END}{rest.partition(TREE_END)[2]}"])


DOCUMENTS: Mapping[Path, Callable[[], str]] = {
    DOCS / "errors.md": errors,
    DOCS / "settings.md": settings,
    DOCS / "redis-keys.md": redis_keys,
    DOCS / "openapi.json": openapi,
    PROJECT / ".env.example": env_example,
    PROJECT / "ARCHITECTURE.md": architecture,
}


def _room(folder: Path, depth: int = 0) -> Iterator[str]:
    """The line of a package, then those of its modules and of the packages in it."""
    yield _tree_line(f"{folder.name}/", folder / "__init__.py", depth)
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield _tree_line(path.name, path, depth + 1)
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").exists():
            yield from _room(path, depth + 1)


def _tree_line(name: str, module: Path, depth: int) -> str:
    """Raises ValueError for a module without a docstring."""
    text = ast.get_docstring(ast.parse(module.read_text()))
    if not text:
        raise ValueError(f"{module} has no docstring")
    start = f"{'  ' * depth}{name}".ljust(26)
    sentence = re.split(r"(?<=[.?!])\s", " ".join(text.split()) + " ")[0]
    while len(start + sentence) > MAX_COLUMNS:  # The last clause goes, and the next to last.
        sentence = sentence[: max(sentence.rfind(mark) for mark in (", ", "; ", ": ", " ("))]
    return start + sentence.rstrip(".")


def _table(catalogue: Mapping[str, ErrorSpec]) -> Iterator[str]:
    yield "| code | HTTP | tries | blame | raised when |"
    yield "|---|---|---|---|---|"
    for spec in catalogue.values():
        blame = f"{spec.blame}, alert" if spec.alert else str(spec.blame)
        yield f"| `{spec.code}` | {spec.status} | {spec.max_attempts} | {blame} | {_cell(spec.raised_when)} |"


def _messages(texts: Texts, catalogue: Mapping[str, ErrorSpec]) -> Iterator[str]:
    for code in catalogue:
        yield f"**`{code}`**"
        for locale in Locale:
            text = texts.error(code, locale)
            line = f"- {text.title}: {text.message} {text.advice}"
            yield fill(line, MAX_COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        yield ""


def _dotenv(value: Any) -> str:
    """As a `.env` file has it: JSON for what is no plain value."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return f"'{json.dumps({name: each.model_dump() for name, each in value.items()})}'"
    if isinstance(value, tuple | bool):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    for path, document in DOCUMENTS.items():
        path.write_text(document())
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
