"""How wrong an answer is, per photo. All but cross-entropy know that counts are ordered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from binwatch.counts import CLASSES, MORE
from trainer.config import TrainConfig
from trainer.targets import soft_targets


class Loss:
    """The configured loss, with a weight per class, float (classes,), or none."""

    def __init__(self, config: TrainConfig, weights: Tensor | None = None) -> None:
        self._kind = config.loss
        self._sigma = config.ordinal_sigma
        self._weights = weights

    def __call__(self, logits: Tensor, quantities: Tensor, step: Tensor | None = None) -> Tensor:
        """Of logits (batch, classes) and items per photo, int64 (batch,): their part of the mean over a step.

        `step` is the items per photo of the whole step, on the CPU; none if the batch is all of it. The parts of a
        step, wherever they are computed, add up to its (weighted) mean.
        """
        each = self._each(logits, quantities)
        step = quantities.cpu() if step is None else step
        if self._weights is None:
            return each.sum() / len(step)
        weight = self._weights.to(each.device)[quantities.clamp(max=MORE)]
        return (each * weight).sum() / float(self._weights[step.clamp(max=MORE)].sum())

    def _each(self, logits: Tensor, quantities: Tensor) -> Tensor:
        if self._kind == "cross_entropy":
            return functional.cross_entropy(logits, quantities.clamp(max=MORE), reduction="none")
        if self._kind == "earth_mover":
            return earth_mover(logits, quantities)
        return functional.cross_entropy(logits, soft_targets(quantities, self._sigma), reduction="none")


def earth_mover(logits: Tensor, quantities: Tensor) -> Tensor:
    """Squared earth mover's distance between answer and label (Hou et al. 2016, arXiv 1611.05916), float (batch,).

    Probability on a class two items away costs more than on one next to the label.
    """
    wanted = functional.one_hot(quantities.clamp(max=MORE), len(CLASSES)).float()
    difference = (torch.softmax(logits, dim=1) - wanted).cumsum(dim=1)
    return difference.square().sum(dim=1)


def class_weights(labels: npt.NDArray[np.int64], kind: str) -> Tensor | None:
    """What photos of each class count: more for the rare ones. The mean over `labels` is 1.

    "balanced" gives every class the same sum; "sqrt" goes half the way, since full weight on a class of a few photos
    makes the training noisy.
    """
    if kind == "none":
        return None
    photos: npt.NDArray[Any] = np.bincount(labels, minlength=len(CLASSES))
    weights = (1 / np.maximum(photos, 1)) ** (1.0 if kind == "balanced" else 0.5)
    return torch.from_numpy(weights / weights[labels].mean()).float()
