"""Documents agree with the code and with each other."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from api.http.problems import ALL_CODES
from cli.configuration import PACKAGES, variable_of
from cli.docs import DOCUMENTS

ROOT = Path(__file__).parent.parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "samples").rglob("*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize(("path", "document"), DOCUMENTS.items(), ids=lambda value: getattr(value, "name", ""))
def test_a_made_document_is_up_to_date(path: Path, document: Callable[[], str]) -> None:
    assert path.read_text() == document(), "run `make docs` and review what changed"


@pytest.mark.parametrize("code", ALL_CODES)
def test_every_code_is_documented(code: str) -> None:
    assert f"`{code}`" in (ROOT / "docs/errors.md").read_text()


def test_every_setting_is_documented_and_described() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    fields = [(package, name, field) for package in PACKAGES for name, field in package.model_fields.items()]
    assert all(field.description for _, _, field in fields)
    assert [name for package, name, field in fields if f"`{variable_of(package, name, field)}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    targets = [unquote(link.partition("#")[0]) for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert missing == []
