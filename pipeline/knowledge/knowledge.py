"""Knowledge: all resources, loaded at one moment and validated together. Immutable: a reload creates a new one."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from pipeline.knowledge.contradiction import Contradictions
from pipeline.knowledge.fingerprint import LOCAL_MODEL, fingerprints, local_model_dir, pipeline_version
from pipeline.knowledge.grammar import Grammar
from pipeline.knowledge.imagenet_labels import LABELS_FILE, ImagenetLabels
from pipeline.knowledge.insufficiency import Insufficiencies
from pipeline.knowledge.lexicon import Lexicon
from pipeline.knowledge.rulebook import Rulebook
from pipeline.knowledge.texts import PLACEHOLDER, PROMPT_PLACEHOLDER, Texts
from pipeline.knowledge.yaml_file import read_yaml
from pipeline.settings import RESOURCES
from pipeline.types import Locale

QUOTED_NAME = re.compile("`([^`]+)`")
HANGUL = re.compile("[가-힣]")
"""Korean in backquotes in a prompt is the name of a category or a tag."""

Loaded = TypeVar("Loaded")


class ChangedDuringLoad(ValueError):
    """The files changed while they were being loaded. Retry: the next load may find them complete."""


@dataclass(frozen=True)
class Knowledge:
    """`fingerprints` has one entry for each file loaded; `version` is the pipeline version over all of them."""

    texts: Texts
    rulebook: Rulebook
    insufficiencies: Insufficiencies
    contradictions: Contradictions
    lexicon: Lexicon
    grammar: Grammar
    fingerprints: Mapping[str, str]
    version: str

    @classmethod
    def load(cls, resources: Path, *, running: "Knowledge | None" = None) -> "Knowledge":
        """Blocks. Raises ValueError with every mistake of every file, ChangedDuringLoad, or OSError (unreadable).

        `running` is the Knowledge in use. Its fingerprints of the local model are kept: those files are opened once a
        process, so a change to them needs a restart.
        """
        found = fingerprints(resources)
        mistakes: list[str] = []
        texts = _load(Texts.load, resources, mistakes)
        rulebook = _load(Rulebook.load, resources, mistakes)
        insufficiencies = contradictions = lexicon = grammar = None
        if texts is not None:
            mistakes += _text_mistakes(texts, _shipped_texts())
        if rulebook is not None:
            mistakes += _rulebook_mistakes(resources, rulebook)
            contradictions = _load(partial(Contradictions.load, rulebook=rulebook), resources, mistakes)
            lexicon = _load(partial(Lexicon.load, rulebook=rulebook), resources, mistakes)
            grammar = _load(partial(Grammar.load, rulebook=rulebook), resources, mistakes)
        if texts is not None and rulebook is not None:
            mistakes += _name_mistakes(texts, rulebook)
            load = partial(Insufficiencies.load, rulebook=rulebook, texts=texts)
            insufficiencies = _load(load, resources, mistakes)
        if fingerprints(resources) != found:
            raise ChangedDuringLoad(f"The files in {resources} changed while they were read")
        if mistakes:
            raise ValueError(f"Mistakes in {resources}:\n" + "\n".join(mistakes))
        assert texts and rulebook and insufficiencies and contradictions and lexicon and grammar  # noqa: S101, PT018 - no mistakes
        kept = found if running is None else with_local_model(found, running.fingerprints)
        version = pipeline_version(kept)
        return cls(texts, rulebook, insufficiencies, contradictions, lexicon, grammar, kept, version)


def with_local_model(found: Mapping[str, str], running: Mapping[str, str]) -> dict[str, str]:
    """The fingerprints `found`, with those of the local model's files replaced by the ones from `running`."""
    return {name: digest for name, digest in found.items() if not _is_local_model(name)} | {
        name: digest for name, digest in running.items() if _is_local_model(name)
    }


def _is_local_model(name: str) -> bool:
    return name.startswith(f"{LOCAL_MODEL}/")


def _load(load: Callable[[Path], Loaded], resources: Path, mistakes: list[str]) -> Loaded | None:
    try:
        return load(resources)
    except ValueError as error:
        mistakes.append(str(error).removeprefix(f"Mistakes in {resources}:\n"))
    return None


@cache
def _shipped_texts() -> Texts:
    """The reference for `_text_mistakes`: the shipped texts, read once a process."""
    return Texts.load(RESOURCES)


def _text_mistakes(texts: Texts, shipped: Texts) -> Iterator[str]:
    """Every prompt and message used by the code must exist, and use only the placeholders that the code fills."""
    for name, prompt in shipped.prompts.items():
        if not texts.prompts.get(name, "").strip():
            yield f"{name}.md: missing or empty"
            continue
        filled, used = (set(PROMPT_PLACEHOLDER.findall(text)) for text in (prompt, texts.prompts[name]))
        yield from (f"{name}.md: there is no {{{{{unknown}}}}}" for unknown in sorted(used - filled))
        yield from (f"{name}.md: without {{{{{unused}}}}}" for unused in sorted(filled - used))
    for locale in Locale:
        given, expected = texts.messages[locale], shipped.messages[locale]
        yield from (f"{locale}.toml: no error {code}" for code in expected.errors.keys() - given.errors.keys())
        for key, template in expected.messages.items():
            if key not in given.messages:
                yield f"{locale}.toml: no message {key}"
                continue
            unknown = set(PLACEHOLDER.findall(given.messages[key])) - set(PLACEHOLDER.findall(template))
            yield from (f"{locale}.toml: {key} asks for {name}, which it is not given" for name in sorted(unknown))


def _name_mistakes(texts: Texts, rulebook: Rulebook) -> Iterator[str]:
    """A prompt must not quote a category or tag that the taxonomy no longer has: the model would return it."""
    middles = rulebook.middles()
    minors = (minor for middle in middles for minor in rulebook.minors_of(middle))
    known = {*(major.ko for major in rulebook.majors), *middles, *minors, *rulebook.tags}
    for name, prompt in texts.prompts.items():
        quoted_names = {quoted for quoted in QUOTED_NAME.findall(prompt) if HANGUL.search(quoted)}
        for quoted in sorted(quoted_names - known):
            yield f"{name}.md: `{quoted}` is no category and no tag"


def _rulebook_mistakes(resources: Path, rulebook: Rulebook) -> Iterator[str]:
    if not any(rulebook.rule(middle, Locale.KO) for middle in rulebook.middles()):
        yield "rulebook: no rule at all"
    model_dir = local_model_dir(resources)
    card = model_dir / "model.json"
    try:
        named = set(json.loads(card.read_bytes())["categories"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        yield f"{LOCAL_MODEL}/{card.name}: {error!r}"
        return
    mistakes: list[str] = []
    labels = read_yaml(model_dir / LABELS_FILE, ImagenetLabels, mistakes)
    yield from (f"{LOCAL_MODEL}/{mistake}" for mistake in mistakes)
    unknown = sorted((named | set(labels.root if labels else ())) - set(rulebook.middles()))
    yield from (f"taxonomy.yaml: the local model knows {name}, which is no middle category" for name in unknown)
