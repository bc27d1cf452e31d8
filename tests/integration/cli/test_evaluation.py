"""`bunri eval`: the real local model, and a hosted one on a real socket; as a process where exit codes count."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from cli.evaluation.command import EvaluationRequest as Wanted
from cli.evaluation.command import Outputs, evaluate, show_comparison
from cli.evaluation.records import CannotEvaluate, Report
from tests.support.bunri import BUNRI, ROOT, run_bunri
from tests.support.image_server import Answer, ImageServer, Request
from tests.support.openai_server import SEEN, base_url, completed, late, openai_server, problem, well_behaved
from tests.support.wait import wait_until

GOLDEN = ROOT / "samples/golden"


@pytest.fixture
def photos(tmp_path: Path, samples: Path) -> Path:
    """Four photos of three labels, one of them broken."""
    root = tmp_path / "photos"
    for name, label in (("glass-1", "glass"), ("glass-2", "유리병"), ("metal-1", "metal"), ("broken", "metal")):
        (root / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(samples / f"{name}.jpg", root / label)
    return root


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(json=tmp_path / "out.json")


def hosted(server: ImageServer) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": base_url(server)}


def use(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hosted(server).items():
        monkeypatch.setenv(name, value)


async def evaluated(wanted: Wanted) -> Report:
    return await evaluate(wanted, out=Console(file=StringIO()), err=Console(file=StringIO()))


def written(path: Path | None) -> dict[str, Any]:
    assert path is not None
    found: dict[str, Any] = orjson.loads(path.read_bytes())
    return found


async def test_the_local_model_is_counted_and_a_broken_photo_is_a_row(photos: Path, outputs: Outputs) -> None:
    report = await evaluated(Wanted(photos, outputs=outputs))
    assert report.by.model.startswith("local/")
    assert {item.photo: str(item.verdict) for item in report.items} == {
        "glass/glass-1.jpg": "right",
        "metal/broken.jpg": "failed",
        "metal/metal-1.jpg": "right",
        "유리병/glass-2.jpg": "right",
    }
    assert (report.figures.errors, report.figures.accuracy) == ({"source.corrupt_image": 1}, 0.75)
    assert report.run.latency.p50
    assert Report.model_validate(written(outputs.json)) == report


async def test_equal_runs_write_equal_files_but_for_run(photos: Path, tmp_path: Path) -> None:
    found = []
    for name, concurrency in (("a.json", 1), ("b.json", 4)):
        await evaluated(Wanted(photos, concurrency=concurrency, outputs=Outputs(json=tmp_path / name)))
        found.append(written(tmp_path / name))
    first, second = found
    assert list(first) == sorted(first)
    assert first.pop("run") != second.pop("run")
    assert first == second


async def test_what_a_manifest_names_and_nobody_can_read_is_a_row(tmp_path: Path, samples: Path) -> None:
    manifest = tmp_path / "set.jsonl"
    names = (str(samples / "glass-1.jpg"), "gone.jpg", "\\u0000", ".")
    manifest.write_text("".join(f'{{"path": "{name}", "label": "glass"}}\n' for name in names))
    report = await evaluated(Wanted(manifest))
    assert report.figures.errors == {"source.not_found": 3}
    assert report.figures.accuracy == 0.25


async def test_a_photo_beyond_the_limit_is_a_row(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_FETCH_MAX_BYTES", "10000")
    report = await evaluated(Wanted(photos))
    assert report.figures.errors == {"source.too_large": 3, "source.corrupt_image": 1}


async def test_a_hosted_model_is_counted_with_tokens_and_cost(
    photos: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server() as server:
        use(server, monkeypatch)
        report = await evaluated(Wanted(photos, outputs=outputs))
        assert len(server.requests) == 3  # The broken photo is not sent.
    assert report.by.model == "gpt-5.6-terra"
    assert {item.predicted for item in report.items} == {SEEN["middle_category"], None}
    usage = report.run.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (9000, 6000, 300)
    assert usage.cost_usd == pytest.approx(3 * (500 * 2.0 + 2000 * 0.2 + 500 * 2.5 + 100 * 12.0) / 1e6)
    assert report.run.priced


async def test_with_a_key_the_local_model_may_be_asked_for_and_an_unknown_one_may_not(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server() as server:
        use(server, monkeypatch)
        assert (await evaluated(Wanted(photos, model="local"))).by.model.startswith("local/")
        with pytest.raises(CannotEvaluate):
            await evaluated(Wanted(photos, model="gpt-none"))
        assert server.requests == []


async def test_trouble_with_the_model_is_tried_again_as_in_a_job(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with openai_server(fallback=first_fails()) as server:
        use(server, monkeypatch)
        report = await evaluated(Wanted(photos))
        assert len(server.requests) == 4
    assert report.figures.errors == {"source.corrupt_image": 1}


async def test_what_failed_by_the_models_trouble_is_asked_again_in_the_next_run(
    photos: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(photos, outputs=outputs)
    with openai_server(fallback=lambda _: problem(401, "invalid_api_key")) as server:
        use(server, monkeypatch)
        report = await evaluated(wanted)
        assert report.figures.errors == {"model.account": 3, "source.corrupt_image": 1}
        server.fallback = lambda _: completed(SEEN)
        report = await evaluated(wanted)
        assert (report.figures.errors, report.run.resumed) == ({"source.corrupt_image": 1}, 1)
        asked = len(server.requests)
        assert (await evaluated(wanted)).run.resumed == 4
        assert len(server.requests) == asked
        assert (await evaluated(replace(wanted, fresh=True))).run.resumed == 0


def first_fails() -> Callable[[Request], Answer]:
    left = [problem(500)]
    return lambda request: left.pop() if left else well_behaved(request)


async def test_two_reports_are_compared_photo_by_photo(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, other, changed = (tmp_path / name for name in ("local.json", "hosted.json", "changed.json"))
    await evaluated(Wanted(photos, outputs=Outputs(json=local)))
    with openai_server() as server:
        use(server, monkeypatch)
        await evaluated(Wanted(photos, outputs=Outputs(json=other)))
    show_comparison(local, other, changed, Console(file=StringIO()))
    found = written(changed)
    assert found["sums"] == {"fixed": 0, "broken": 1, "changed": 0}
    assert [item["photo"] for item in found["items"]] == ["metal/metal-1.jpg"]


async def test_page_and_picture_show_the_mistakes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_LOCAL_THRESHOLD", "1")
    page, picture = tmp_path / "out.html", tmp_path / "out.png"
    await evaluated(Wanted(photos, outputs=Outputs(html=page, png=picture)))
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 3  # All abstained, and the broken one has no picture.
    assert text.count('data-verdict="abstained"') == 3
    assert picture.read_bytes().startswith(b"\x89PNG")


async def test_a_place_that_cannot_be_written_is_found_before_anything_is_asked(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai_server() as server:
        use(server, monkeypatch)
        for place in (tmp_path, tmp_path / "none/out.json"):
            with pytest.raises(CannotEvaluate):
                await evaluated(Wanted(photos, outputs=Outputs(json=place)))
        assert server.requests == []


def test_an_interrupted_run_goes_on_from_what_is_written(tmp_path: Path) -> None:
    out, journal = tmp_path / "out.json", tmp_path / "out.looks.jsonl"
    command = ["eval", str(GOLDEN), "--limit", "12", "--concurrency", "1", "--json", str(out)]
    with openai_server(fallback=lambda request: late(well_behaved(request), 0.1)) as server:
        env = hosted(server)
        process = subprocess.Popen([BUNRI, *command], cwd=ROOT, env={**os.environ, **env}, stderr=subprocess.DEVNULL)
        wait_until(lambda: journal.is_file() and len(journal.read_bytes().splitlines()) >= 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 128 + signal.SIGINT
        assert not out.exists()
        kept = len(journal.read_bytes().splitlines())
        assert kept < 12

        assert run_bunri(*command, env=env).returncode == 0
        assert len(server.requests) <= 12 + 1  # One was in flight when the run was interrupted.
    report = Report.model_validate(written(out))
    assert (report.run.resumed, report.figures.photos) == (kept, 12)


def test_below_the_floor_the_exit_code_is_1(photos: Path) -> None:
    assert run_bunri("eval", str(photos), "--fail-below", "0.75").returncode == 0
    assert run_bunri("eval", str(photos), "--fail-below", "0.76").returncode == 1


QUESTIONS = """
{"text": "보조배터리", "category": "전지"}
{"question": "greasy pizza box", "locale": "en", "categories": ["general"], "part": "fresh"}
{"text": "소주병", "minor": "소주·맥주병"}
{"text": "식용유", "unsure": true}
{"text": "안녕하세요", "not_waste": true}
{"text": "우유팩", "category": "종이"}
{"text": "짐볼링기", "category": "종이"}
"""


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Seven labelled questions: five that are read right, one taken for another category, one unknown."""
    path = tmp_path / "questions.jsonl"
    path.write_text(QUESTIONS, "utf-8")
    return path


async def test_questions_in_words_are_counted_without_a_key(questions: Path, tmp_path: Path) -> None:
    outputs = Outputs(json=tmp_path / "out.json", html=tmp_path / "out.html")
    report = await evaluated(Wanted(questions, questions=True, outputs=outputs))
    assert (report.of, report.by.model) == ("questions", "local/words")
    assert {item.photo: str(item.verdict) for item in report.items if item.verdict != "right"} == {
        "우유팩": "wrong",
        "짐볼링기": "abstained",
    }
    figures = report.figures
    assert (figures.confidently_wrong, figures.unknown) == pytest.approx((1 / 7, 1 / 7), abs=1e-6)
    assert {each.category: each.wrong for each in figures.classes if each.wrong} == {"종이": 1}
    assert Report.model_validate(written(outputs.json)) == report
    assert 'data-verdict="wrong"' in (tmp_path / "out.html").read_text()
    assert (await evaluated(Wanted(questions, questions=True, split="fresh"))).figures.photos == 1


async def test_questions_are_asked_of_the_hosted_model_if_there_is_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "one.jsonl"
    manifest.write_text('{"text": "보조배터리", "category": "전지"}\n', "utf-8")
    with openai_server() as server:
        use(server, monkeypatch)
        report = await evaluated(Wanted(manifest, questions=True))
        assert report.by.model == "gpt-5.6-terra"
        assert len(server.requests) == 1
        assert report.run.usage.input_tokens > 0


async def test_two_reports_on_questions_are_compared(questions: Path, tmp_path: Path) -> None:
    before, after, changed = (tmp_path / name for name in ("a.json", "b.json", "changed.json"))
    await evaluated(Wanted(questions, questions=True, outputs=Outputs(json=before)))
    mended = written(before)
    for item in mended["items"]:
        item.update({"predicted": item["truth"], "verdict": "right"})
    after.write_bytes(orjson.dumps(mended))
    show_comparison(before, after, changed, Console(file=StringIO()))
    assert (written(changed)["of"], written(changed)["sums"]["fixed"]) == ("questions", 2)


def test_questions_below_the_floor_exit_with_1(questions: Path) -> None:
    assert run_bunri("eval", "--questions", str(questions), "--fail-below", "0.71").returncode == 0
    assert run_bunri("eval", "--questions", str(questions), "--fail-below", "0.72").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("samples/golden", "--questions", "tests/data/questions.jsonl"),
        ("--questions", "no-such.jsonl"),
        ("samples",),  # Its one folder is no label.
        ("samples/golden", "--compare", "a.json", "b.json"),
        ("--compare", "no-such.json", "neither.json"),
    ],
)
def test_what_cannot_be_tried_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert run_bunri("eval", *arguments).returncode == 2


def test_the_golden_set_is_held_out_of_training() -> None:
    held_out = set((ROOT / "training/held_out.txt").read_text().split())
    golden = {path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*.jpg")}
    assert len(golden) == 60
    assert golden <= held_out
