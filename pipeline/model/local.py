"""The local model: ONNX on this machine's CPU, no network and no key. The only importer of onnxruntime."""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# onnxruntime 1.32 reports to its maker from the moment it is imported, on a thread of its own, unless it finds this.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from pipeline.image import to_rgb
from pipeline.insufficiency import missing_texts, texts_of
from pipeline.model import LOCAL, Tell
from pipeline.rulebook import UNCLASSIFIED, Rulebook, RuleText
from pipeline.texts import Texts
from pipeline.types import (
    Answer,
    AnswerForm,
    Candidate,
    Classification,
    Frozen,
    JobInput,
    Locale,
    Observation,
    RuleMatch,
    SourceImage,
)

CARD = "model.json"
SHOWN_CANDIDATES = 3
WORTH_ASKING = 0.05
"""A candidate below this is not offered to the user as a guess."""


class ModelCard(Frozen):
    """model.json: how to feed the network and read it. `sha256` and `evaluation` are for people and tests."""

    name: str
    file: str
    sha256: str
    side: int
    classes: tuple[str, ...]
    categories: dict[str, str]
    temperature: float
    strangeness_limit: float
    evaluation: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Sight:
    """Middle categories with their probabilities, likeliest first; they sum to one. And how odd the picture is."""

    ranked: list[tuple[str, float]]
    strangeness: float


class LocalVision:
    """Sorts a photo into one of a few middle categories by its looks alone, or says 미분류.

    It does so below the threshold, then with candidates, and for a picture unlike all it was trained on, then without:
    a softmax is sure of a blank frame, too.

    Owns one onnxruntime session and one thread, in which decoding and inference run, so the event loop never
    waits. Needs no open loop; safe to share among all jobs of a process.
    """

    def __init__(self, model_dir: Path, rulebook: Rulebook, threshold: float) -> None:
        """Blocks while the file loads (some 50 ms). Raises ValueError if file, card and taxonomy disagree."""
        self._card = ModelCard.model_validate_json((model_dir / CARD).read_bytes())
        self._rulebook = rulebook
        self._threshold = threshold
        self._session = _open_session(model_dir / self._card.file)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-vision")
        self.name = f"{LOCAL}/{self._card.name}"
        if mistakes := _mistakes(self._card, self._session, rulebook):
            raise ValueError(f"Mistakes in {model_dir}:\n" + "\n".join(mistakes))

    async def observe(self, image: SourceImage, *, question: str, locale: Locale) -> Observation:
        """Neither `question` nor `locale` matters: the network sees pixels only, and names are Korean keys.

        Claims no situation tag and no minor category: it was taught neither.
        """
        del question, locale
        loop = asyncio.get_running_loop()
        sight = await loop.run_in_executor(self._thread, self._look, image.data)
        if sight.strangeness > self._card.strangeness_limit:
            return Observation(classification=self._classification(UNCLASSIFIED), confidence=0.0, model=self.name)
        middle, confidence = sight.ranked[0]
        return Observation(
            classification=self._classification(middle if confidence >= self._threshold else UNCLASSIFIED),
            confidence=confidence,
            candidates=tuple(
                Candidate(middle_category=name, confidence=value) for name, value in sight.ranked[:SHOWN_CANDIDATES]
            ),
            model=self.name,
        )

    def knowing(self, rulebook: Rulebook) -> "LocalVision":
        """The same model, session and thread, with another taxonomy. Raises ValueError if that lacks a category."""
        if mistakes := _unknown_categories(self._card.categories, rulebook):
            raise ValueError("\n".join(mistakes))
        other = copy(self)
        other._rulebook = rulebook  # noqa: SLF001 - its own class
        return other

    async def close(self) -> None:
        """Photos not yet begun are dropped; one in work ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _classification(self, middle: str) -> Classification:
        return self._rulebook.classification(middle, None)

    def _look(self, data: bytes) -> _Sight:
        """Blocks for one decode and one inference, some 15 ms."""
        pixels = to_rgb(data, self._card.side)[np.newaxis]
        logits, strangeness = self._session.run(["logits", "strangeness"], {"pixels": pixels})
        probabilities = _softmax(logits[0].astype(np.float64) / self._card.temperature)
        sums: dict[str, float] = {}
        for name, probability in zip(self._card.classes, probabilities, strict=True):
            middle = self._card.categories[name]
            sums[middle] = min(sums.get(middle, 0.0) + float(probability), 1.0)  # Rounding may pass one.
        return _Sight(sorted(sums.items(), key=lambda item: -item[1]), float(strangeness[0]))


class LocalAnswer:
    """Composes the answer from the rule document: no model, no network, no waiting."""

    name = f"{LOCAL}/rules"

    def __init__(self, texts: Texts, rulebook: Rulebook) -> None:
        self._texts = texts
        self._rulebook = rulebook

    async def write(self, observation: Observation, rule: RuleMatch, job: JobInput, tell: Tell) -> Answer:
        """Nothing here understands a question about a photo; the answer says so."""
        del tell  # It takes no time.
        document = RuleText.model_validate(rule.document)
        if not job.has_photo:
            text = self._of_things(observation, rule, job.locale)
            return Answer(disposal_steps=document.steps, user_answer=text, model=self.name)
        unread = (self._texts.message("answer.unread", job.locale),) if job.user_input else ()
        text = self._summary(observation, rule, document, job.locale)
        if job.form is AnswerForm.PROSE:  # Then this text is all that is shown.
            text = " ".join((text, *unread, *missing_texts(observation, rule, job, self._texts)))
        return Answer(disposal_steps=document.steps, insufficiencies=unread, user_answer=text, model=self.name)

    def _of_things(self, observation: Observation, rule: RuleMatch, locale: Locale) -> str:
        """Each thing that was named, and what it lacks, in a paragraph."""
        named = [observation.name or rule.category, *(each.name for each in observation.others)]
        rules = (rule, *rule.others)
        paragraphs = [self._of_thing(name, each, locale) for name, each in zip(named, rules, strict=True)]
        head = [self._texts.message("chat.several", locale)] if len(rules) > 1 else []
        return "\n".join((*head, *paragraphs))

    def _of_thing(self, name: str, rule: RuleMatch, locale: Locale) -> str:
        document = RuleText.model_validate(rule.document)
        text = self._texts.message(
            "chat.thing",
            locale,
            name=name,
            category=self._display_name(rule.category, locale),
            summary=document.summary,
            first_step=document.steps[0],
        )
        return " ".join((text, *texts_of(rule.insufficiencies, self._texts, locale)))

    def _summary(self, observation: Observation, rule: RuleMatch, document: RuleText, locale: Locale) -> str:
        if rule.category != UNCLASSIFIED:
            return self._texts.message(
                "answer.local",
                locale,
                category=self._display_name(rule.category, locale),
                summary=document.summary,
                first_step=document.steps[0],
            )
        guesses = [each.middle_category for each in observation.candidates if each.confidence >= WORTH_ASKING]
        if not guesses:
            return self._texts.message("answer.unknown", locale)
        names = ", ".join(self._display_name(name, locale) for name in guesses)
        return self._texts.message("answer.unsure", locale, candidates=names)

    def _display_name(self, middle: str, locale: Locale) -> str:
        return middle if locale is Locale.KO else self._rulebook.middle(middle).en


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread: parallel jobs come from parallel processes, and a pool that spins would take their cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _mistakes(card: ModelCard, session: onnxruntime.InferenceSession, rulebook: Rulebook) -> list[str]:
    (pixels,), (logits, _) = session.get_inputs(), session.get_outputs()
    mistakes = []
    if list(pixels.shape[1:]) != [card.side, card.side, 3]:
        mistakes.append(f"{card.file} takes {pixels.shape}, the card says side {card.side}")
    if logits.shape[1] != len(card.classes):
        mistakes.append(f"{card.file} gives {logits.shape[1]} logits, the card names {len(card.classes)} classes")
    if set(card.categories) != set(card.classes):
        mistakes.append("categories and classes name different classes")
    mistakes += _unknown_categories(card.categories, rulebook)
    return mistakes


def _unknown_categories(categories: Mapping[str, str], rulebook: Rulebook) -> list[str]:
    unknown = sorted(set(categories.values()) - set(rulebook.middles()))
    return [f"category {name} is not in the taxonomy" for name in unknown]


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    probabilities: npt.NDArray[np.float64] = powers / powers.sum()
    return probabilities
