"""The loss of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from binwatch.counts import CLASSES, EVERY, HIGHEST
from trainer.config import DistilConfig, TrainConfig
from trainer.models.targets import classes_of, expand_to_quantities, least, soft_targets

NO_TEACHERS = DistilConfig()
LEAST = 1e-9
"""Added to each probability before normalisation: a teacher may give a probability of 0 to all learned classes."""


class Loss:
    """The configured loss, with a weight per class, float (classes,), or none."""

    def __init__(
        self,
        config: TrainConfig,
        weights: Tensor | None = None,
        distil: DistilConfig = NO_TEACHERS,
        classes: Sequence[int] = EVERY,
        highest: int = HIGHEST,
    ) -> None:
        """`classes` are the indexes of the classes that are learned; targets of all others are 0."""
        self._sigma = config.ordinal_sigma if config.loss == "ordinal" else 0.0
        self._highest = highest
        self._weights = weights  # on the CPU, so that a step's sum needs no CPU–GPU sync
        self._on_device = None if weights is None else weights.to(config.device)
        self._distil = distil
        self._learned = None
        if tuple(classes) != EVERY:
            learned = torch.zeros(len(CLASSES), device=config.device)
            learned[list(classes)] = 1
            self._learned = expand_to_quantities(learned, highest + 2)

    def __call__(
        self,
        logits: Tensor,
        quantities: Tensor,
        step_quantities: Tensor | None = None,
        teacher_probabilities: Tensor | None = None,
    ) -> Tensor:
        """A batch's part of its step's mean loss, from logits (batch, quantities) and items per photo, int64 (batch,).

        `step_quantities` are the items per photo of the whole step, on the CPU; None if the batch is the whole step.
        The parts of a step add up to its (weighted) mean. `teacher_probabilities` are float (batch, quantities).
        """
        targets = self.targets(quantities)
        each = cross_entropy(logits, targets)
        # If the label is "n or more", every prediction from n on is right.
        each = torch.where(quantities < 0, at_least(logits, ~quantities) * targets.sum(dim=1), each)
        if teacher_probabilities is not None:
            each = torch.lerp(each, self._from_teachers(logits, targets, teacher_probabilities), self._distil.share)
        step = quantities.cpu() if step_quantities is None else step_quantities
        return each.sum() / (len(step) if self._weights is None else float(self._weights[classes_of(step)].sum()))

    def targets(self, quantities: Tensor) -> Tensor:
        """Training targets, float32 (batch, quantities). Each row adds up to the photo's weight: 1, or its class's."""
        wanted = self._of_learned(soft_targets(least(quantities), self._sigma, self._highest))
        if self._on_device is None:
            return wanted
        return wanted * self._on_device[classes_of(quantities)][:, None]

    def _from_teachers(self, logits: Tensor, targets: Tensor, teacher_probabilities: Tensor) -> Tensor:
        """The distance from the teachers. The squared temperature keeps the scale of gradients (Hinton et al. 2015)."""
        temperature = self._distil.temperature
        weighted = self._of_learned(teacher_probabilities) * targets.sum(dim=1, keepdim=True)
        return temperature**2 * cross_entropy(logits / temperature, weighted)

    def _of_learned(self, chances: Tensor) -> Tensor:
        """Probabilities (rows, quantities), those of the learned classes alone, which then add up to 1."""
        if self._learned is None:
            return chances
        kept = (chances + LEAST) * self._learned
        return kept / kept.sum(dim=1, keepdim=True)


def cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of each row of logits with its targets, both float (batch, quantities): float (batch,)."""
    return functional.cross_entropy(logits, wanted, reduction="none")


def at_least(logits: Tensor, fewest: Tensor) -> Tensor:
    """−log of the probability of `fewest` items or more, int64 (batch,), by logits (batch, quantities): float (batch,).

    All quantities beyond the highest one are the same output.
    """
    numbers = torch.arange(logits.shape[1], device=logits.device)
    below = numbers[None, :] < fewest.clamp(max=logits.shape[1] - 1)[:, None]
    return logits.logsumexp(dim=1) - logits.masked_fill(below, -torch.inf).logsumexp(dim=1)


def class_weights(labels: npt.NDArray[np.int64], kind: str) -> Tensor | None:
    """The weight of each class's photos in the loss, larger for rare classes. The mean over `labels` is 1.

    "balanced" gives every class the same sum. "sqrt" is between that and equal weights, because large weights of a few
    photos make the training noisy.
    """
    if kind == "none":
        return None
    photos: npt.NDArray[Any] = np.bincount(labels, minlength=len(CLASSES))
    weights = (1 / np.maximum(photos, 1)) ** (1.0 if kind == "balanced" else 0.5)
    return torch.from_numpy(weights / weights[labels].mean()).float()
