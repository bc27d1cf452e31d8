"""The local vision model: ONNX on this machine's CPU, no network and no key. The only importer of onnxruntime."""

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

# onnxruntime 1.32 reports to its maker from the moment it is imported, on a thread of its own, unless it finds this.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from pipeline.intake.image import to_rgb
from pipeline.knowledge.imagenet_labels import LABELS_FILE, ImagenetLabels
from pipeline.knowledge.rulebook import UNCLASSIFIED, Rulebook
from pipeline.knowledge.yaml_file import duplicates, read_yaml
from pipeline.models import LOCAL, MAX_CANDIDATES
from pipeline.models.local.heads import HeadBlend
from pipeline.types import (
    Candidate,
    Classification,
    Locale,
    Observation,
    SourceImage,
    Strict,
)

CARD = "model.json"
OUTPUTS = ("logits", "things", "strangeness")
"""The outputs of the file (`strangeness` is the ood_score), in the order of `HeadBlend.probabilities`."""

MIN_TOTAL_PROBABILITY = 0.5
"""With less in all categories together the picture is out of distribution, and nothing in it has a name."""


class ModelCard(Strict):
    """model.json: how to feed the network and read it. `sha256` and `evaluation` are for people and tests.

    `also`: other categories accepted for this label (used by `bunri eval`).
    """

    name: str
    file: str
    sha256: str
    side: int
    classes: tuple[str, ...]
    categories: dict[str, str]
    also: dict[str, tuple[str, ...]]
    temperature: float
    ood_limit: float
    trust_threshold: float
    trust_slope: float
    evaluation: dict[str, Any]


class LocalVision:
    """Sorts a photo into a middle category by its pixels alone, or into 미분류.

    미분류 is the category below the threshold, then with candidates; of photos without waste; and of pictures out of
    distribution in which nothing has a name: a softmax is sure of a blank frame, too.

    Owns one onnxruntime session and one thread, in which decoding and inference run, so the event loop never
    waits. Needs no open loop; safe to share among all jobs of a process.
    """

    def __init__(self, model_dir: Path, rulebook: Rulebook, threshold: float) -> None:
        """Blocks while the file loads (some 50 ms). Raises ValueError if its files and the taxonomy disagree."""
        self._card = ModelCard.model_validate_json((model_dir / CARD).read_bytes())
        self._rulebook = rulebook
        self._threshold = threshold
        self._session = _open_session(model_dir / self._card.file)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-vision")
        self.name = f"{LOCAL}/{self._card.name}"
        mistakes: list[str] = []
        things = read_yaml(model_dir / LABELS_FILE, ImagenetLabels, mistakes)
        mistakes += _mistakes(self._card, things, self._session, rulebook)
        if mistakes or things is None:
            raise ValueError(f"Mistakes in {model_dir}:\n" + "\n".join(mistakes))
        self._blend = _blend_of(self._card, things, self._session)

    async def observe(self, image: SourceImage, *, question: str, locale: Locale) -> Observation:
        """Neither `question` nor `locale` matters: the network sees pixels only, and names are Korean keys.

        Never has a situation tag or a minor category: it was trained on neither.
        """
        del question, locale
        loop = asyncio.get_running_loop()
        ranked = await loop.run_in_executor(self._thread, self._classify, image.data)
        if not ranked:
            return Observation(classification=self._classification(UNCLASSIFIED), confidence=0.0, model=self.name)
        middle, confidence = ranked[0]
        return Observation(
            classification=self._classification(middle if confidence >= self._threshold else UNCLASSIFIED),
            confidence=confidence,
            candidates=tuple(
                Candidate(middle_category=name, confidence=value) for name, value in ranked[:MAX_CANDIDATES]
            ),
            model=self.name,
        )

    def with_rulebook(self, rulebook: Rulebook) -> "LocalVision":
        """The same model, session and thread with another taxonomy. Raises ValueError if that lacks a category."""
        if mistakes := _unknown_categories(self._blend.categories, rulebook):
            raise ValueError("\n".join(mistakes))
        other = copy(self)
        other._rulebook = rulebook  # noqa: SLF001 - its own class
        return other

    async def close(self) -> None:
        """Drops photos that are still queued; does not wait for the one in work."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _classification(self, middle: str) -> Classification:
        return self._rulebook.classification(middle, None)

    def _classify(self, data: bytes) -> list[tuple[str, float]]:
        """Middle categories with their probabilities, likeliest first; none out of distribution. Blocks for 15 ms."""
        pixels = to_rgb(data, self._card.side)[np.newaxis]
        outputs = self._session.run(OUTPUTS, {"pixels": pixels})
        (row,) = self._blend.probabilities(*(np.asarray(output, np.float64) for output in outputs))
        if row.sum() < MIN_TOTAL_PROBABILITY:
            return []
        # Rounding may pass one.
        return sorted(
            ((name, min(float(value), 1.0)) for name, value in zip(self._blend.categories, row, strict=True)),
            key=lambda item: -item[1],
        )


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread: parallel jobs come from parallel processes, and a pool that spins would take their cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The weights are int8 and the arithmetic is not: without this they would be multiplied out again for each photo.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _blend_of(card: ModelCard, things: ImagenetLabels, session: onnxruntime.InferenceSession) -> HeadBlend:
    return HeadBlend.of(
        [card.categories[name] for name in card.classes],
        things.category_of,
        _width(session, "things"),
        temperature=card.temperature,
        ood_limit=card.ood_limit,
        trust_threshold=card.trust_threshold,
        trust_slope=card.trust_slope,
    )


def _width(session: onnxruntime.InferenceSession, output: str) -> int:
    return int(next(each.shape[1] for each in session.get_outputs() if each.name == output))


def _mistakes(
    card: ModelCard, things: ImagenetLabels | None, session: onnxruntime.InferenceSession, rulebook: Rulebook
) -> list[str]:
    (pixels,) = session.get_inputs()
    classes, count = _width(session, "logits"), _width(session, "things")
    named = things.root if things else {}
    mistakes = []
    if list(pixels.shape[1:]) != [card.side, card.side, 3]:
        mistakes.append(f"{card.file} takes {pixels.shape}, the card says side {card.side}")
    if classes != len(card.classes):
        mistakes.append(f"{card.file} gives {classes} logits, the card names {len(card.classes)} classes")
    if set(card.categories) != set(card.classes):
        mistakes.append("categories and classes name different classes")
    indices = [index for group in named.values() for index in group]
    mistakes += [f"{LABELS_FILE}: {index} is listed twice" for index in duplicates(indices)]
    mistakes += [f"{LABELS_FILE}: there is no {index}" for index in indices if index not in range(count)]
    mistakes += _unknown_categories({*card.categories.values(), *named}, rulebook)
    return mistakes


def _unknown_categories(names: Iterable[str], rulebook: Rulebook) -> list[str]:
    unknown = sorted(set(names) - set(rulebook.middles()))
    return [f"category {name} is not in the taxonomy" for name in unknown]
