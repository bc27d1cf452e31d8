"""Blends the two heads of the local model. Pure; training measures with it exactly as it is served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

MIN_SHARE = 1e-9


@dataclass(frozen=True, slots=True)
class HeadBlend:
    """How the network's outputs become probabilities of middle categories.

    The first head was trained on photos of a few kinds of waste and takes a banana for one of them. The second knows
    the thousand things of ImageNet, some of which have a category here. It counts more than the first once it puts more
    than `trust_threshold` of its mass on one category, and the more the surer it is, with `trust_slope`.
    """

    categories: tuple[str, ...]
    of_class: Numbers
    of_thing: Numbers
    temperature: float
    ood_limit: float
    trust_threshold: float
    trust_slope: float

    @classmethod
    def of(
        cls,
        classes: Sequence[str],
        things: Mapping[int, str],
        width: int,
        *,
        temperature: float,
        ood_limit: float,
        trust_threshold: float,
        trust_slope: float,
    ) -> "HeadBlend":
        """`classes`: the category of each output of the first head. `things`: those of some of the `width` outputs of
        the second.
        """
        categories = tuple(dict.fromkeys((*classes, *things.values())))
        of_class, of_thing = np.zeros((len(classes), len(categories))), np.zeros((width, len(categories)))
        of_class[range(len(classes)), [categories.index(name) for name in classes]] = 1
        of_thing[list(things), [categories.index(name) for name in things.values()]] = 1
        return cls(categories, of_class, of_thing, temperature, ood_limit, trust_threshold, trust_slope)

    def probabilities(self, logits: Numbers, things: Numbers, ood_score: Numbers) -> Numbers:
        """(picture, class), (picture, thing), (picture,) → (picture, category).

        A row sums to one; to less above `ood_limit`, where the first head does not count: the picture is unlike all
        that it was trained on.
        """
        by_class = softmax(logits / self.temperature) @ self.of_class
        by_class[ood_score > self.ood_limit] = 0
        by_thing = softmax(things) @ self.of_thing
        surest = by_thing.max(axis=1, keepdims=True)
        trust = 1 / (1 + np.exp(-self.trust_slope * (_log_odds(surest) - _log_odds(self.trust_threshold))))
        mixed: Numbers = (1 - trust) * by_class + trust * by_thing / by_thing.sum(axis=1, keepdims=True)
        return mixed


def softmax(logits: Numbers) -> Numbers:
    powers: Numbers = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _log_odds(share: Numbers | float) -> Numbers:
    inside = np.clip(share, MIN_SHARE, 1 - MIN_SHARE)
    odds: Numbers = np.log(inside / (1 - inside))
    return odds
