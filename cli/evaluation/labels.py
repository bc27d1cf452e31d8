"""Meaning of a data set's labels: label → middle category."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import orjson

from cli.evaluation.records import CannotEvaluate, Labelled
from pipeline.knowledge.fingerprint import MODEL_CARD, local_model_dir
from pipeline.knowledge.rulebook import Rulebook


class Labels:
    """Known labels: Korean name, English name or id of a middle category; classes of the local model's training photos.

    A class can be ambiguous between two categories; then both are accepted. `extra` adds labels, and takes precedence.
    Case and Unicode normal form (file systems differ in Hangul) do not matter.
    """

    def __init__(
        self,
        rulebook: Rulebook,
        classes: Mapping[str, str],
        extra: Mapping[str, str] | None = None,
        also: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """`also`: class → other accepted categories. Raises CannotEvaluate if `extra` maps to an unknown category."""
        self._also = {
            _key(name): frozenset(middles) for name, middles in (also or {}).items() if name not in (extra or {})
        }
        middles = [rulebook.middle(name) for name in rulebook.middles()]
        self._known = {_key(name): middle for name, middle in classes.items()}
        self._known |= {_key(name): each.ko for each in middles for name in (each.id, each.en, each.ko)}
        self._shown = [f"{each.ko} ({each.id}, {each.en})" for each in middles]
        self._shown += [f"{name} → {middle}" for name, middle in classes.items()]
        if unknown := sorted(name for name in (extra or {}).values() if _key(name) not in self._known):
            raise CannotEvaluate(f"--labels leads to unknown categories: {', '.join(unknown)}\n{self.help}")
        self._known |= {_key(label): self._known[_key(name)] for label, name in (extra or {}).items()}

    @property
    def help(self) -> str:
        """All known labels, for an error message."""
        return "known are:\n" + "\n".join(f"  {line}" for line in self._shown)

    def categories(self, names: Iterable[str]) -> list[str]:
        """The middle categories of these labels. Raises CannotEvaluate that lists the unknown ones."""
        names = list(names)
        if unknown := [name for name in names if _key(name) not in self._known]:
            raise CannotEvaluate(
                f"unknown labels: {', '.join(unknown)}; --labels FILE says what they mean.\n{self.help}"
            )
        return [self._known[_key(name)] for name in names]

    def apply(self, photos: Iterable[Labelled]) -> list[Labelled]:
        """The photos with their truth. Raises CannotEvaluate that lists every unknown label."""
        photos = list(photos)
        unknown = Counter(each.label for each in photos if _key(each.label) not in self._known)
        if unknown:
            named = ", ".join(f"{label} ({count})" for label, count in sorted(unknown.items()))
            raise CannotEvaluate(f"unknown labels: {named}; --labels FILE says what they mean.\n{self.help}")
        return [
            replace(each, truth=self._known[_key(each.label)], also=self._also.get(_key(each.label), frozenset()))
            for each in photos
        ]


def load_labels(rulebook: Rulebook, resources: Path, extra: Path | None) -> Labels:
    """Reads the classes from the local model's card, and `extra`, a JSON file with an object label → category."""
    card = orjson.loads((local_model_dir(resources) / MODEL_CARD).read_bytes())
    return Labels(rulebook, card["categories"], _read(extra) if extra else None, card["also"])


def _read(path: Path) -> dict[str, str]:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CannotEvaluate(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CannotEvaluate(f'{path} is no JSON object of label → category, such as {{"bottle": "유리병"}}')
    return found


def _key(name: str) -> str:
    return normalize("NFC", name).strip().casefold()
