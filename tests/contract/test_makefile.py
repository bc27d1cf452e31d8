"""Which Python `make` takes, with stub interpreters on a PATH of its own: no real one is started or installed."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MAKE = shutil.which("make")

SHIM = "import sys\nsys.exit('pyenv: command not found')\n"
"""What pyenv leaves on PATH of a version that is not active."""

STUB = """\
import sys
from pathlib import Path
sys.version_info = {version}
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:  # -m venv FOLDER
    for name, script in (("pip", ""), ("uv", {uv!r})):
        path = Path(sys.argv[3], "bin", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text({shebang!r} + script)
        path.chmod(0o755)
"""

UV = """\
import sys
from pathlib import Path
Path(".venv").mkdir(exist_ok=True)
with Path("synced").open("a") as file:
    print(sys.argv[sys.argv.index("--python") + 1], file=file)
"""

SHEBANG = f"#!{sys.executable} -IS\n"


@dataclass
class Tree:
    """The Makefile with what it depends on, and a PATH that has the stubs, `touch` and nothing else."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "path"

    def write(self, name: str, script: str) -> None:
        stub = self.path / name
        stub.write_text(SHEBANG + script)
        stub.chmod(0o755)

    def install(self, name: str, version: tuple[int, int, int]) -> Path:
        self.write(name, STUB.format(version=version, uv=UV, shebang=SHEBANG))
        return self.path / name

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert MAKE
        return subprocess.run(
            [MAKE, *arguments],
            cwd=self.folder,
            env={"PATH": str(self.path)},  # without MAKEFLAGS: the tests may run under `make test PYTHON=…`
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def synced(self) -> list[str]:
        """The interpreter of each sync, by name."""
        file = self.folder / "synced"
        return [Path(line).name for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "path").mkdir()
    (tmp_path / "path/touch").symlink_to(shutil.which("touch") or "")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "uv.lock"):
        (tmp_path / name).touch()
    return Tree(tmp_path)


def refused(tree: Tree, *arguments: str) -> str:
    """The one line that `make demo` ended with, before anything else was done."""
    ended = tree.make("demo", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert not {".tools", ".venv", "synced"} & {path.name for path in tree.folder.iterdir()}
    [line] = ended.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("installed", "taken"),
    [
        ({"python3.11": (3, 11, 7), "python3.12": (3, 12, 1), "python3": (3, 13, 0)}, "python3.11"),
        ({"python3.13": (3, 13, 0), "python3": (3, 10, 13)}, "python3.13"),
        ({"python3": (3, 12, 1)}, "python3"),
    ],
)
def test_the_oldest_python_that_will_do_is_taken(
    tree: Tree, installed: dict[str, tuple[int, int, int]], taken: str
) -> None:
    for name, version in installed.items():
        tree.install(name, version)
    assert tree.make("setup").returncode == 0
    assert tree.synced() == [taken]


def test_a_command_that_does_not_run_is_passed_over(tree: Tree) -> None:
    tree.write("python3.11", SHIM)
    tree.install("python3.12", (3, 12, 1))
    assert tree.make("setup").returncode == 0
    assert tree.synced() == ["python3.12"]


def test_without_any_python_one_line_says_so(tree: Tree) -> None:
    assert "3.11" in refused(tree)


def test_a_shim_alone_is_no_python(tree: Tree) -> None:
    tree.write("python3", SHIM)
    assert "3.11" in refused(tree)


def test_where_the_machines_python_is_too_old_one_line_names_its_version(tree: Tree) -> None:
    tree.install("python3", (3, 10, 13))
    assert "3.10" in refused(tree)


def test_a_python_that_is_named_and_too_old_or_missing_is_not_replaced_by_another(tree: Tree) -> None:
    tree.install("python3.11", (3, 11, 7))
    old = tree.install("old", (3, 10, 13))
    assert "3.10" in refused(tree, f"PYTHON={old}")
    assert "/missing" in refused(tree, "PYTHON=/missing")


def test_the_environment_stays_on_its_python_until_another_is_named(tree: Tree) -> None:
    tree.install("python3.11", (3, 11, 7))
    tree.install("python3.13", (3, 13, 0))
    for arguments in (["PYTHON=python3.13"], [], ["PYTHON=python3.11"], []):
        assert tree.make("setup", *arguments).returncode == 0
    assert tree.synced() == ["python3.13", "python3.11"]


def test_listing_the_targets_needs_no_python(tree: Tree) -> None:
    for name in ("grep", "awk"):
        (tree.path / name).symlink_to(shutil.which(name) or "")
    ended = tree.make()
    assert ended.returncode == 0
    assert "demo" in ended.stdout


def test_no_path_in_the_makefile_holds_for_one_python_only() -> None:
    assert re.findall(r"lib/python3\.\d+", (ROOT / "Makefile").read_text()) == []
