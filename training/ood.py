"""Out of distribution: how unlike the plain photos that we trained on a picture is, for the network.

Features of such photos lie near a plane of few dimensions. How far a picture is from it, in units of the usual spread,
is its score: blank frames and noise have a high one. A softmax would be sure of them all the same.
"""

from dataclasses import dataclass

import numpy as np

from training.head import FOLDS, Floats, Labels

COMPONENTS = 64
USUAL = 0.999
"""Quantile of the score among photos of the right kind, held out, ..."""
MARGIN = 1.1
"""... and the room left above it: a photo refused wrongly is worse here than a strange picture accepted."""


@dataclass(frozen=True)
class Plane:
    """`basis` is (feature, component), orthonormal, in features centred by `mean` and divided by `spread`."""

    mean: Floats
    spread: Floats
    basis: Floats

    def ood_score(self, features: Floats) -> Floats:
        offsets = (features - self.mean) / self.spread
        rest = offsets - offsets @ self.basis @ self.basis.T
        distance: Floats = np.sqrt(np.square(rest).mean(axis=1))
        return distance


def fit_plane(features: Floats) -> Plane:
    """From (photo, view, feature)."""
    rows = features.reshape(-1, features.shape[-1])
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-3
    offsets = (rows - mean) / spread
    _, directions = np.linalg.eigh(offsets.T @ offsets)
    return Plane(mean, spread, np.ascontiguousarray(directions[:, -COMPONENTS:]))


def fit_limit(features: Floats, folds: Labels) -> float:
    """The score above which a picture is out of distribution, from photos that the plane was not fitted to."""
    held = [
        fit_plane(features[folds != fold]).ood_score(features[folds == fold].reshape(-1, features.shape[-1]))
        for fold in range(FOLDS)
    ]
    return float(np.quantile(np.concatenate(held), USUAL)) * MARGIN
