"""One module spells the names of Redis keys, each key says how long it lives, and scripts name their arguments."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.redis.keys import PREFIX, REDIS_KEYS
from jobs.redis.scripts import script_text
from jobs.redis.signatures import SIGNATURES

ROOT = Path(__file__).parent.parent.parent
PRODUCT = ("kit", "pipeline", "jobs", "workers", "api", "cli", "client", "benchmarks")
OWNER = Path("jobs/redis/keys.py")
LUA = ROOT / "jobs/redis/lua"
SPELLED = re.compile(rf"""["']{re.escape(PREFIX)}""")


def spelled_elsewhere(root: Path) -> Iterator[str]:
    """Files of the product that spell a key's name, but for its owner."""
    for room in PRODUCT:
        for path in sorted((root / room).rglob("*")):
            is_code = path.suffix in {".py", ".lua"} and path.relative_to(root) != OWNER
            if is_code and SPELLED.search(path.read_text()):
                yield str(path.relative_to(root))


def test_no_other_file_spells_a_key() -> None:
    assert list(spelled_elsewhere(ROOT)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("jobs/feed/feed.py", 'FEED = "bunri:feed"'),
        ("workers/execute/gate.py", "key = f'bunri:model:{name}'"),
        ("jobs/redis/lua/claim.lua", "redis.call('GET', 'bunri:leader')"),
    ],
)
def test_a_file_that_spells_a_key_is_found(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert list(spelled_elsewhere(tmp_path)) == [name]


def test_each_key_has_a_ttl_or_a_reason_to_be_permanent() -> None:
    assert [key.name for key in REDIS_KEYS if bool(key.ttl) == bool(key.permanent)] == []
    assert len({key.name for key in REDIS_KEYS}) == len(REDIS_KEYS)


def test_each_script_has_a_signature() -> None:
    assert {path.stem for path in LUA.glob("*.lua")} - {"prelude"} == SIGNATURES.keys()


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_script_uses_each_name_of_its_signature_and_no_number(name: str) -> None:
    signature, script = SIGNATURES[name], (LUA / f"{name}.lua").read_text()
    code = re.sub(r"--.*", "", script)
    names = (*signature.keys, *signature.args, *signature.lists)
    assert len(set(names)) == len(names)
    assert [each for each in names if not re.search(rf"\b{each}\b", code)] == []
    assert re.findall(r"(?:KEYS|ARGV)\[\d+\]", code) == []
    assert script_text(name).endswith(script)
