"""`bunri demo`, `scan`, `config` and `pipeline show`, as processes."""

import signal
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.support.bunri import BUNRI, ROOT, run_bunri
from tests.support.image_server import folder_server
from tests.support.openai_server import SEEN, base_url, openai_server

EXPECTED = orjson.loads((ROOT / "samples/expected.json").read_bytes())


def lines(text: str) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in text.splitlines()]


def test_the_demo_classifies_every_sample_as_it_should() -> None:
    done = run_bunri("demo", "--json")
    assert done.returncode == 0, done.stderr
    printed = lines(done.stdout)
    assert [each["photo"] for each in printed] == [each["file"] for each in EXPECTED]
    answered = [each for each in printed if each["error"] is None]
    assert len(answered) >= 8
    assert all(each["disposal_steps"] and str(each["model"]).startswith("local/") for each in answered)
    [broken] = [each for each in printed if each["error"]]
    assert isinstance(broken["error"], dict)
    assert broken["error"]["code"] == "source.corrupt_image"


def test_the_demo_fails_when_a_photo_does_not_end_as_it_should() -> None:
    done = run_bunri("demo", "--json", env={"PIPELINE_LOCAL_THRESHOLD": "1"})
    assert done.returncode == 1
    assert {each["middle_category"] for each in lines(done.stdout)} == {"미분류", None}


def test_without_a_redis_server_on_the_path_the_wheels_binary_serves() -> None:
    done = run_bunri("scan", "--json", "samples/glass-1.jpg", env={"PATH": "/nonexistent"})
    assert (done.returncode, lines(done.stdout)[0]["middle_category"]) == (0, "유리병"), done.stderr


def test_the_table_shows_photo_category_and_error_code() -> None:
    done = run_bunri("scan", "samples/glass-1.jpg", "samples/broken.jpg")
    assert done.returncode == 1
    for shown in ("glass-1.jpg", "유리병", "broken.jpg", "source.corrupt_image"):
        assert shown in done.stdout


def test_with_a_key_the_hosted_model_answers(samples: Path) -> None:
    with openai_server() as server, folder_server(samples) as origin:
        env = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": base_url(server), "FETCH_ALLOW": "127.0.0.1"}
        done = run_bunri("scan", "--json", origin.url("/metal-1.jpg?signature=TOPSECRET"), env=env)
    [printed] = lines(done.stdout)
    assert (printed["middle_category"], printed["model"]) == (SEEN["middle_category"], "gpt-5.6-terra")
    assert len(server.requests) == 2
    assert "TOPSECRET" not in done.stdout + done.stderr


def test_a_link_into_our_own_network_is_refused() -> None:
    done = run_bunri("scan", "--json", "http://127.0.0.1:80/a.jpg")
    [printed] = lines(done.stdout)
    assert (done.returncode, printed["status"]) == (1, "refused")
    assert isinstance(printed["error"], dict)
    assert printed["error"]["code"] == "source.url_unsafe"


@pytest.mark.parametrize(
    "arguments", [("scan", "no-such-file.jpg"), ("scan", "--api", "http://127.0.0.1:1", "samples/glass-1.jpg")]
)
def test_what_cannot_be_tried_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert run_bunri(*arguments).returncode == 2


def test_an_interrupted_run_does_not_look_like_a_good_one() -> None:
    process = subprocess.Popen(
        [BUNRI, "demo", "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline()  # It is starting.
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=30)
    assert (process.returncode, printed) == (128 + signal.SIGTERM, "")


def test_photos_of_one_name_and_names_with_brackets_are_all_shown(samples: Path, tmp_path: Path) -> None:
    names = [tmp_path / folder / "[bold]cup.jpg" for folder in ("a", "b")]
    for path, sample in zip(names, ("glass-1.jpg", "metal-1.jpg"), strict=True):
        path.parent.mkdir()
        path.write_bytes((samples / sample).read_bytes())
    done = run_bunri("scan", "--json", *map(str, names))
    assert [each["middle_category"] for each in lines(done.stdout)] == ["유리병", "금속류"]
    assert {each["photo"] for each in lines(done.stdout)} == {"[bold]cup.jpg"}


def test_all_mistakes_in_the_settings_are_named_at_once_and_no_value() -> None:
    wrong = {"REDIS_URL": "TOPSECRET", "FETCH_ALLOW": "10.0.0.0/99", "PIPELINE_MODEL_TIMEOUT": "soon"}
    done = run_bunri("config", env=wrong)
    assert done.returncode == 2
    assert [name for name in wrong if name not in done.stderr] == []
    assert "TOPSECRET" not in done.stdout + done.stderr


def test_the_settings_are_shown_with_their_secrets_masked() -> None:
    secrets = {"OPENAI_API_KEY": "sk-TOPSECRET", "REDIS_URL": "redis://:TOPSECRET@redis.example:6379/0"}
    done = run_bunri("config", "--json", env=secrets)
    shown = orjson.loads(done.stdout)
    assert "redis.example" in shown["REDIS_URL"]
    assert shown["OPENAI_API_KEY"]
    assert "TOPSECRET" not in done.stdout


def test_the_pipeline_is_shown_with_its_version() -> None:
    shown = orjson.loads(run_bunri("pipeline", "show", "--json").stdout)
    assert len(shown["categories"]) == 19
    assert shown["fingerprints"]["taxonomy.yaml"]
    assert len(shown["pipeline_version"]) == 12
