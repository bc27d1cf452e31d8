"""The local model: what ships sorts the samples, abstains when unsure, and never blocks the loop."""

import asyncio
import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import SourceCorruptImage
from pipeline.intake.image import Bounds, prepare, to_rgb
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook, Taxonomy
from pipeline.models.local.vision import LocalVision
from pipeline.settings import PipelineSettings
from pipeline.types import Locale, Observation, SourceImage, Usage

ROOT = Path(__file__).parents[5]
RESOURCES = ROOT / "pipeline" / "resources"
MODEL = RESOURCES / "local_model"
SAMPLES = ROOT / "samples"
THRESHOLD = 0.5
BOUNDS = Bounds(long_side=1024, max_pixels=50_000_000, max_pixels_other=25_000_000)

EXPECTED: list[dict[str, str]] = json.loads((SAMPLES / "expected.json").read_text("utf-8"))
PHOTOS = {entry["file"]: entry["category"] for entry in EXPECTED if "category" in entry}
BROKEN = {entry["file"]: entry["error"] for entry in EXPECTED if "error" in entry}


@pytest.fixture(scope="module")
def rulebook() -> Rulebook:
    return Rulebook.load(RESOURCES)


@pytest.fixture
async def vision(rulebook: Rulebook) -> AsyncIterator[LocalVision]:
    model = LocalVision(MODEL, rulebook, THRESHOLD)
    yield model
    await model.close()


def photo(name: str) -> SourceImage:
    return checked((SAMPLES / name).read_bytes())


def checked(data: bytes) -> SourceImage:
    """As the decode process hands it on."""
    ready = prepare(data, BOUNDS)
    return SourceImage(
        media_type="image/jpeg",
        data=ready.data,
        width=ready.width,
        height=ready.height,
        sha256=hashlib.sha256(ready.data).hexdigest(),
    )


async def classify(model: LocalVision, name: str) -> Observation:
    return await model.observe(photo(name), question="", locale=Locale.KO)


@pytest.mark.parametrize(("name", "category"), PHOTOS.items())
async def test_each_sample_gets_its_category(vision: LocalVision, name: str, category: str) -> None:
    observation = await classify(vision, name)
    assert observation.classification.middle_category == category


@pytest.mark.parametrize(("name", "code"), BROKEN.items())
def test_each_broken_sample_is_refused_before_the_model(name: str, code: str) -> None:
    with pytest.raises(SourceCorruptImage) as refusal:
        photo(name)
    assert refusal.value.spec.code == code


def test_the_samples_cover_every_class_of_the_model() -> None:
    card = json.loads((MODEL / "model.json").read_text("utf-8"))
    assert {name.rsplit("-", 1)[0] for name in PHOTOS} == set(card["classes"]) - {"clear_pet"}


def test_every_photo_in_the_samples_is_expected_to_end_somehow() -> None:
    assert {path.name for path in SAMPLES.glob("*.jpg")} == set(PHOTOS) | set(BROKEN)


async def test_a_sample_is_placed_under_its_major_category(vision: LocalVision) -> None:
    recyclable, general = await classify(vision, "glass-1.jpg"), await classify(vision, "trash-1.jpg")
    assert recyclable.classification.major_category == "재활용폐기물"
    assert general.classification.major_category == "일반종량제폐기물"


async def test_it_claims_nothing_that_it_was_not_taught(vision: LocalVision) -> None:
    observation = await classify(vision, "metal-1.jpg")
    assert observation.situation_tags == ()
    assert observation.classification.minor_category is None
    assert observation.usage == Usage()


async def test_the_candidates_are_the_three_likeliest_in_order(vision: LocalVision) -> None:
    observation = await classify(vision, "plastic-2.jpg")
    confidences = [each.confidence for each in observation.candidates]
    assert len(confidences) == 3
    assert confidences == sorted(confidences, reverse=True)
    assert observation.confidence == confidences[0]


async def test_the_probabilities_of_the_middle_categories_sum_to_one(vision: LocalVision) -> None:
    ranked = vision._classify(photo("paper-1.jpg").data)
    assert sum(probability for _, probability in ranked) == pytest.approx(1.0)
    assert len({middle for middle, _ in ranked}) == len(ranked)


async def test_cardboard_and_paper_count_together(rulebook: Rulebook, tmp_path: Path) -> None:
    """At a temperature this high all seven classes are equally likely, so their shared category has two sevenths."""
    model = LocalVision(_changed_model(tmp_path, temperature=1e9, trust_threshold=1.0), rulebook, THRESHOLD)
    observation = await classify(model, "glass-1.jpg")
    assert observation.candidates[0].middle_category == "종이"
    assert observation.confidence == pytest.approx(2 / 7)
    await model.close()


async def test_below_the_threshold_it_abstains_and_still_names_candidates(rulebook: Rulebook, tmp_path: Path) -> None:
    model = LocalVision(_changed_model(tmp_path, temperature=1e9, trust_threshold=1.0), rulebook, THRESHOLD)
    observation = await classify(model, "glass-1.jpg")
    assert observation.classification.major_category == UNCLASSIFIED
    assert observation.classification.middle_category == UNCLASSIFIED
    assert len(observation.candidates) == 3
    await model.close()


@pytest.mark.parametrize("name", ["black", "grey", "white", "noise"])
async def test_a_picture_of_nothing_is_not_guessed_at(vision: LocalVision, name: str) -> None:
    observation = await vision.observe(_picture_of_nothing(name), question="", locale=Locale.KO)
    assert observation.classification.middle_category == UNCLASSIFIED
    assert observation.confidence == 0.0
    assert observation.candidates == ()


async def test_a_higher_threshold_only_ever_adds_abstentions(rulebook: Rulebook, tmp_path: Path) -> None:
    vague = _changed_model(tmp_path, temperature=6.0)
    abstained: list[set[str]] = []
    for threshold in (0.0, 0.5, 0.7, 0.9, 1.0):
        model = LocalVision(vague, rulebook, threshold)
        abstained.append({name for name in PHOTOS if _is_unsure(await classify(model, name))})
        await model.close()
    assert all(fewer <= more for fewer, more in itertools.pairwise(abstained))
    assert abstained[0] == set()
    assert abstained[-1] == set(PHOTOS)


async def test_the_threshold_moves_the_category_and_never_the_confidence(rulebook: Rulebook) -> None:
    lax, strict = LocalVision(MODEL, rulebook, 0.0), LocalVision(MODEL, rulebook, 1.0)
    sure, unsure = await classify(lax, "trash-2.jpg"), await classify(strict, "trash-2.jpg")
    assert sure.confidence == unsure.confidence
    assert sure.candidates == unsure.candidates
    await lax.close()
    await strict.close()


async def test_the_name_in_results_is_local_and_the_model(vision: LocalVision) -> None:
    observation = await classify(vision, "paper-2.jpg")
    assert vision.name == "local/trashnet-lite2-2"
    assert observation.model == vision.name


async def test_all_photos_of_a_process_go_through_one_thread(vision: LocalVision) -> None:
    before = set(threading.enumerate())
    observations = await asyncio.gather(*(classify(vision, name) for name in PHOTOS))
    assert len(set(threading.enumerate()) - before) == 1
    assert [each.classification.middle_category for each in observations] == list(PHOTOS.values())


async def test_the_loop_goes_on_while_the_model_works(vision: LocalVision, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model waits here for a word that only the loop can give."""
    word = threading.Event()

    def waiting(data: bytes, side: int) -> NDArray[np.uint8]:
        assert word.wait(timeout=30)
        return to_rgb(data, side)

    monkeypatch.setattr("pipeline.models.local.vision.to_rgb", waiting)
    running = asyncio.create_task(classify(vision, "glass-2.jpg"))
    await asyncio.sleep(0)
    word.set()
    assert (await running).classification.middle_category == "유리병"


def test_torch_is_not_loaded() -> None:
    code = "import sys, pipeline.models.local.vision; print(sorted({'torch', 'openai', 'aiohttp'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_card_describes_the_file_beside_it() -> None:
    card = json.loads((MODEL / "model.json").read_text("utf-8"))
    data = (MODEL / card["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == card["sha256"]
    assert len(data) <= 12_000_000


def test_the_card_reports_the_accuracy_that_the_project_asks_for() -> None:
    card = json.loads((MODEL / "model.json").read_text("utf-8"))
    assert card["evaluation"]["first_head"]["accuracy"] >= 0.93
    assert card["evaluation"]["middle_category"]["calibration_error"] <= 0.03
    assert (
        card["evaluation"]["middle_category"]["at_threshold"][str(PipelineSettings().local_threshold)][
            "right_if_answered"
        ]
        >= 0.97
    )


def test_a_card_that_disagrees_with_its_file_is_refused_with_every_mistake(rulebook: Rulebook, tmp_path: Path) -> None:
    changed = _changed_model(tmp_path, side=64, classes=["glass"], categories={"glass": "유리컵"})
    with pytest.raises(ValueError, match="side 64") as refusal:
        LocalVision(changed, rulebook, THRESHOLD)
    assert "7 logits" in str(refusal.value)
    assert "유리컵" in str(refusal.value)


async def test_another_taxonomy_shares_the_model_and_must_know_its_categories(rulebook: Rulebook) -> None:
    model = LocalVision(MODEL, rulebook, THRESHOLD)
    other = model.with_rulebook(Rulebook.load(MODEL.parent))
    assert other._session is model._session
    taxonomy = Taxonomy(majors=rulebook.majors[-1:], tag_groups=())
    with pytest.raises(ValueError, match="유리병 is not in the taxonomy"):
        model.with_rulebook(Rulebook(taxonomy, ()))
    await model.close()


def test_a_card_whose_categories_leave_a_class_out_is_refused(rulebook: Rulebook, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different classes"):
        LocalVision(_changed_model(tmp_path, categories={"glass": "유리병"}), rulebook, THRESHOLD)


async def test_what_the_second_head_names_is_of_the_category_that_the_map_has(
    rulebook: Rulebook, tmp_path: Path
) -> None:
    """Always believed, it has a say in every photo; with one category in the map that is all it can say."""
    folder = _changed_model(tmp_path, trust_threshold=1e-9)
    (folder / "things.yaml").write_text("조명제품:\n  440: beer bottle\n", "utf-8")
    model = LocalVision(folder, rulebook, THRESHOLD)
    observation = await classify(model, "glass-1.jpg")
    assert observation.classification.middle_category == "조명제품"
    await model.close()


@pytest.mark.parametrize(
    ("things", "mistake"),
    [
        ("조명제품: {846: table lamp}\n전지: {846: table lamp}", "846 is listed twice"),
        ("조명제품: {1000: table lamp}", "there is no 1000"),
        ("램프: {846: table lamp}", "램프 is not in the taxonomy"),
        ("조명제품: table lamp", "조명제품"),
        ("조명제품: {846: a, 846: b}", "twice"),
    ],
)
def test_a_map_of_things_with_a_mistake_is_refused(
    rulebook: Rulebook, tmp_path: Path, things: str, mistake: str
) -> None:
    folder = _changed_model(tmp_path)
    (folder / "things.yaml").write_text(things, "utf-8")
    with pytest.raises(ValueError, match=mistake):
        LocalVision(folder, rulebook, THRESHOLD)


def _picture_of_nothing(name: str) -> SourceImage:
    size = (480, 640, 3)
    pixels = {
        "black": np.zeros(size, np.uint8),
        "grey": np.full(size, 128, np.uint8),
        "white": np.full(size, 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, size, np.uint8),
    }
    file = io.BytesIO()
    Image.fromarray(pixels[name]).save(file, "JPEG")
    return checked(file.getvalue())


def _is_unsure(observation: Observation) -> bool:
    return observation.classification.middle_category == UNCLASSIFIED


def _changed_model(folder: Path, **changes: Any) -> Path:  # Any: a card's fields have many types
    card = json.loads((MODEL / "model.json").read_text("utf-8")) | changes
    shutil.copy(MODEL / card["file"], folder)
    shutil.copy(MODEL / "things.yaml", folder)
    (folder / "model.json").write_text(json.dumps(card), "utf-8")
    return folder


def test_onnxruntime_is_imported_with_its_telemetry_off() -> None:
    """Whether it really starts a thread to report on differs from machine to machine; this variable does not."""
    watch = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))

sys.meta_path.insert(0, Watch())
import pipeline.models.local.vision
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    seen = subprocess.run(
        [sys.executable, "-c", watch], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert seen.stdout.split() == ["1"]
