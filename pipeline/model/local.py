"""The local model: ONNX on this machine's CPU, no network and no key. The only importer of onnxruntime."""

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

from pipeline.image import to_rgb
from pipeline.insufficiency import missing_texts, texts_of
from pipeline.model import LOCAL, Tell
from pipeline.model.looks import Looks
from pipeline.resource import read_yaml, repeated
from pipeline.rulebook import UNCLASSIFIED, Rulebook, RuleText
from pipeline.texts import Texts
from pipeline.things import THINGS, Things
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
OUTPUTS = ("logits", "things", "strangeness")
"""In the order in which `Looks.probabilities` takes them."""

SHOWN_CANDIDATES = 3
WORTH_ASKING = 0.05
"""A candidate below this is not offered to the user as a guess."""

WORTH_SAYING = 0.5
"""With less in all categories together the picture is strange, and nothing in it has a name."""


class ModelCard(Frozen):
    """model.json: how to feed the network and read it. `sha256` and `evaluation` are for people and tests.

    `also` names categories that are right as well for a photo that is labelled with the class; `bunri eval` asks.
    """

    name: str
    file: str
    sha256: str
    side: int
    classes: tuple[str, ...]
    categories: dict[str, str]
    also: dict[str, tuple[str, ...]]
    temperature: float
    strangeness_limit: float
    turn: float
    slope: float
    evaluation: dict[str, Any]


class LocalVision:
    """Sorts a photo into a middle category by its looks alone, or says 미분류.

    It does so below the threshold, with candidates, for what is no waste at all, and for a picture unlike all it was
    trained on in which it can name nothing: a softmax is sure of a blank frame, too.

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
        things = read_yaml(model_dir / THINGS, Things, mistakes)
        mistakes += _mistakes(self._card, things, self._session, rulebook)
        if mistakes or things is None:
            raise ValueError(f"Mistakes in {model_dir}:\n" + "\n".join(mistakes))
        self._looks = _looks_of(self._card, things, self._session)

    async def observe(self, image: SourceImage, *, question: str, locale: Locale) -> Observation:
        """Neither `question` nor `locale` matters: the network sees pixels only, and names are Korean keys.

        Claims no situation tag and no minor category: it was taught neither.
        """
        del question, locale
        loop = asyncio.get_running_loop()
        ranked = await loop.run_in_executor(self._thread, self._look, image.data)
        if not ranked:
            return Observation(classification=self._classification(UNCLASSIFIED), confidence=0.0, model=self.name)
        middle, confidence = ranked[0]
        return Observation(
            classification=self._classification(middle if confidence >= self._threshold else UNCLASSIFIED),
            confidence=confidence,
            candidates=tuple(
                Candidate(middle_category=name, confidence=value) for name, value in ranked[:SHOWN_CANDIDATES]
            ),
            model=self.name,
        )

    def knowing(self, rulebook: Rulebook) -> "LocalVision":
        """The same model, session and thread, with another taxonomy. Raises ValueError if that lacks a category."""
        if mistakes := _unknown_categories(self._looks.categories, rulebook):
            raise ValueError("\n".join(mistakes))
        other = copy(self)
        other._rulebook = rulebook  # noqa: SLF001 - its own class
        return other

    async def close(self) -> None:
        """Photos not yet begun are dropped; one in work ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _classification(self, middle: str) -> Classification:
        return self._rulebook.classification(middle, None)

    def _look(self, data: bytes) -> list[tuple[str, float]]:
        """Middle categories with their probabilities, likeliest first; none if it is like nothing. Blocks for 15 ms."""
        pixels = to_rgb(data, self._card.side)[np.newaxis]
        outputs = self._session.run(OUTPUTS, {"pixels": pixels})
        (row,) = self._looks.probabilities(*(np.asarray(output, np.float64) for output in outputs))
        if row.sum() < WORTH_SAYING:
            return []
        # Rounding may pass one.
        return sorted(
            ((name, min(float(value), 1.0)) for name, value in zip(self._looks.categories, row, strict=True)),
            key=lambda item: -item[1],
        )


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
    # The weights are int8 and the arithmetic is not: without this they would be multiplied out anew for each photo.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _looks_of(card: ModelCard, things: Things, session: onnxruntime.InferenceSession) -> Looks:
    return Looks.of(
        [card.categories[name] for name in card.classes],
        things.category_of,
        _width(session, "things"),
        temperature=card.temperature,
        strangeness_limit=card.strangeness_limit,
        turn=card.turn,
        slope=card.slope,
    )


def _width(session: onnxruntime.InferenceSession, output: str) -> int:
    return int(next(each.shape[1] for each in session.get_outputs() if each.name == output))


def _mistakes(
    card: ModelCard, things: Things | None, session: onnxruntime.InferenceSession, rulebook: Rulebook
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
    mistakes += [f"{THINGS}: {index} is listed twice" for index in repeated(indices)]
    mistakes += [f"{THINGS}: there is no {index}" for index in indices if index not in range(count)]
    mistakes += _unknown_categories({*card.categories.values(), *named}, rulebook)
    return mistakes


def _unknown_categories(names: Iterable[str], rulebook: Rulebook) -> list[str]:
    unknown = sorted(set(names) - set(rulebook.middles()))
    return [f"category {name} is not in the taxonomy" for name in unknown]
