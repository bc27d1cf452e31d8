"""Fine-tunes a copy of the network's late blocks, with a head of its own, on views that change from epoch to epoch.

The blocks before them stay as ImageNet left them. So their activations of every view are computed once and kept, and an
epoch costs a few seconds; and the original late blocks stay beside the copy, with all they know.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.backbone import Block, rounded
from training.head import SEED, Floats, Head, Labels
from training.photos import CLASSES

FIRST = 17
"""The first block of the copy; from here on the picture is 9 × 9."""

VIEWS = 16
"""Augmented views per photo. Each epoch takes the next one."""

EPOCHS = 14
BATCH = 32
RATE, HEAD_RATE = 4e-4, 3e-3
WEIGHT_DECAY = 0.02
SMOOTHING = 0.1
DROPOUT = 0.3
MIXING = 0.2
"""Of two photos into one, with both labels (mixup): the parameter of the beta distribution of their shares."""

AVERAGED = 0.995
"""Decay of the running average of the weights, which is what is kept."""

KERNEL_DIMENSIONS = 4

Activations = NDArray[np.float16]


@dataclass(frozen=True)
class Tail:
    """Tuned late blocks, and the head on the mean of the last one's activations."""

    blocks: tuple[Block, ...]
    head: Head

    def logits(self, activations: Activations) -> Floats:
        """(photo, channel, y, x) → (photo, class)."""
        starts = range(0, len(activations), BATCH)
        with torch.inference_mode():
            rows = [_pooled(self.blocks, _batch(activations[start : start + BATCH])).numpy() for start in starts]
        return self.head.logits(np.concatenate(rows))


def tune(blocks: Sequence[Block], activations: Activations, photos: Labels, labels: Labels, *, name: str) -> Tail:
    """`activations` are those of (photo, view) before block `FIRST`, of which `photos` are trained on: their rows.

    `labels` are those of `photos`.
    """
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    tail, weights = _trainable(blocks[FIRST:])
    size = tail[-1].convs[-1].weight.shape[0]
    head, bias = (torch.zeros(*shape, requires_grad=True) for shape in ((len(CLASSES), size), (len(CLASSES),)))
    everything = [*weights, head, bias]
    averages = [value.detach().clone() for value in everything]
    optimiser = torch.optim.AdamW(
        [{"params": weights, "lr": RATE}, {"params": [head, bias], "lr": HEAD_RATE}], weight_decay=WEIGHT_DECAY
    )
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [RATE, HEAD_RATE], total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    targets = torch.tensor(labels)
    for epoch in range(EPOCHS):
        total = 0.0
        view = epoch % activations.shape[1]
        order = random.permutation(len(labels))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch, share = _batch(activations[photos[rows], view]), float(random.beta(MIXING, MIXING))
            mixed = share * batch + (1 - share) * batch.flip(0)
            guesses = functional.dropout(_pooled(tail, mixed), DROPOUT) @ head.T + bias
            losses = (
                functional.cross_entropy(guesses, truth, label_smoothing=SMOOTHING)
                for truth in (targets[rows], targets[rows].flip(0))
            )
            loss = share * next(losses) + (1 - share) * next(losses)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
            with torch.no_grad():
                for average, value in zip(averages, everything, strict=True):
                    average.lerp_(value, 1 - AVERAGED)
        print(f"{name} epoch {epoch + 1}/{EPOCHS} loss {total / len(order):.3f}", file=sys.stderr, flush=True)
    with torch.no_grad():
        for average, value in zip(averages, everything, strict=True):
            is_kernel = value.dim() == KERNEL_DIMENSIONS
            value.requires_grad_(False).copy_(rounded(average) if is_kernel else average)
    return Tail(tail, Head(head.numpy(), bias.numpy()))


def _trainable(blocks: Sequence[Block]) -> tuple[tuple[Block, ...], list[Tensor]]:
    copies = []
    weights = []
    for block in blocks:
        convs = [
            replace(conv, weight=conv.weight.clone().requires_grad_(), bias=conv.bias.clone().requires_grad_())
            for conv in block.convs
        ]
        weights += [value for conv in convs for value in (conv.weight, conv.bias)]
        copies.append(replace(block, convs=tuple(convs)))
    return tuple(copies), weights


def _batch(activations: Activations) -> Tensor:
    return torch.tensor(activations).float().contiguous(memory_format=torch.channels_last)


def _pooled(blocks: Sequence[Block], value: Tensor) -> Tensor:
    for block in blocks:
        value = block(value)
    return value.mean(dim=(2, 3))
