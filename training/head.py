"""The linear head: logistic regression on frozen features, its cross-validation and its temperature."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training.photos import CLASSES

L2 = 3e-3
"""The best of 0.001, 0.003, 0.01 and 0.03; cross-validation sees no difference between the first two."""

FOLDS = 5
SEED = 0
STEPS = 60

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """Logits are `features @ weight.T + bias`."""

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        return features @ self.weight.T + self.bias


def fit(features: Floats, labels: Labels) -> Head:
    """Train on (photo, view, feature). Features are standardised here; the head undoes it, so callers need not."""
    views = features.shape[1]
    rows = features.reshape(-1, features.shape[-1])
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-3
    inputs = torch.tensor((rows - mean) / spread)
    targets = torch.tensor(np.repeat(labels, views))
    weight = torch.zeros(len(CLASSES), inputs.shape[1], requires_grad=True)
    bias = torch.zeros(len(CLASSES), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(inputs @ weight.T + bias, targets) + L2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    folded = weight.detach().numpy() / spread
    return Head(folded, bias.detach().numpy() - folded @ mean)


def assign_folds(labels: Labels) -> Labels:
    """The fold of each photo, stratified by class."""
    random = np.random.default_rng(SEED)
    folds = np.empty(len(labels), np.int64)
    for label in range(len(CLASSES)):
        members = np.flatnonzero(labels == label)
        random.shuffle(members)
        folds[members] = np.arange(len(members)) % FOLDS
    return folds


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The divisor of the logits that makes the labels likeliest."""
    log_temperature = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=STEPS, line_search_fn="strong_wolfe")
    scores, targets = torch.tensor(logits), torch.tensor(labels)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(scores / log_temperature.exp(), targets)
        value.backward()
        return value

    optimiser.step(loss)
    return float(log_temperature.detach().exp())
