"""Documents agree with the code and with each other."""

import re
import subprocess
from collections.abc import Callable, Iterator
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


MAX_COLUMNS = 120
TRACKED = [
    ROOT / name for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0") if name
]
PROSE = [path for path in TRACKED if path.suffix == ".md" and "resources" not in path.parts and path.exists()]


def too_wide(text: str) -> Iterator[str]:
    """Lines of prose above MAX_COLUMNS; tables and code may be wider."""
    is_code = False
    for line in text.splitlines():
        is_code ^= line.lstrip().startswith("```")
        if len(line) > MAX_COLUMNS and not is_code and not line.lstrip().startswith("|"):
            yield line


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_fits_its_columns(page: Path) -> None:
    assert list(too_wide(page.read_text())) == []


def test_a_line_that_is_too_wide_is_found() -> None:
    wide = "word " * 30
    assert list(too_wide(f"{wide}\n| {wide} |\n```sh\n{wide}\n```\n- {wide}")) == [wide, f"- {wide}"]


PAPERS = re.compile(r"\b(?:facts|house|contract|style|faults|performance)\.md\b|\bshared/docs\b")


@pytest.mark.parametrize(("text", "is_found"), [("(facts.md, Celery 4)", True), ("docs/libraries.md", False)])
def test_a_reference_to_a_paper_of_elsewhere_is_found(text: str, *, is_found: bool) -> None:
    assert bool(PAPERS.search(text)) is is_found


def test_no_file_refers_to_papers_that_are_not_in_the_repository() -> None:
    texts = [path for path in TRACKED if path.suffix in {".py", ".lua", ".md", ".toml", ".yml", ".js", ".ts"}]
    found = {str(path.relative_to(ROOT)) for path in texts if path.exists() and PAPERS.search(path.read_text())}
    assert sorted(found - {"tests/contract/test_docs.py"}) == []


RECORDS = sorted((ROOT / "docs/decisions").glob("*.md"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_decision_says_whether_it_holds(record: Path) -> None:
    third_line = record.read_text().splitlines()[2]
    assert re.match(r"Status: (accepted|replaced by \[\d{4}\]\(\S+\)), \d{4}-\d\d-\d\d\b", third_line)
