"""How wrong an answer is, per photo."""

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
from trainer.models.targets import classes_of, least, of_each, soft_targets

NO_TEACHERS = DistilConfig()
LEAST = 1e-9
"""Added to each probability before it is divided by their sum: a teacher may give the learned classes none at all."""


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
        """`classes` are the indexes of those that are learned: no target is on another one."""
        self._sigma = config.ordinal_sigma if config.loss == "ordinal" else 0.0
        self._highest = highest
        self._weights = weights  # on the CPU, where a step's sum is made without waiting for a GPU
        self._on_device = None if weights is None else weights.to(config.device)
        self._distil = distil
        self._learned = None
        if tuple(classes) != EVERY:
            learned = torch.zeros(len(CLASSES), device=config.device)
            learned[list(classes)] = 1
            self._learned = of_each(learned, highest + 2)

    def __call__(
        self,
        logits: Tensor,
        quantities: Tensor,
        step_quantities: Tensor | None = None,
        teacher_probabilities: Tensor | None = None,
    ) -> Tensor:
        """Of logits (batch, quantities) and items per photo, int64 (batch,): their part of the mean over a step.

        `step_quantities` are those of the whole step, on the CPU; none if the batch is all of it. The parts of a step,
        wherever they are computed, add up to its (weighted) mean. `teacher_probabilities` are float
        (batch, quantities).
        """
        targets = self.targets(quantities)
        each = cross_entropy(logits, targets)
        # Of "n or more" any answer from n on is right.
        each = torch.where(quantities < 0, at_least(logits, ~quantities) * targets.sum(dim=1), each)
        if teacher_probabilities is not None:
            each = torch.lerp(each, self._from_teachers(logits, targets, teacher_probabilities), self._distil.share)
        return each.sum() / self._total(quantities.cpu() if step_quantities is None else step_quantities)

    def targets(self, quantities: Tensor) -> Tensor:
        """What the network should say, float32 (batch, quantities). Each row adds up to what its photo counts: 1, or
        its class's weight.
        """
        wanted = self._of_learned(soft_targets(least(quantities), self._sigma, self._highest))
        if self._on_device is None:
            return wanted
        return wanted * self._on_device[classes_of(quantities)][:, None]

    def _from_teachers(self, logits: Tensor, targets: Tensor, teacher_probabilities: Tensor) -> Tensor:
        """The squared temperature makes up for the gradients, which are smaller by it (Hinton et al. 2015)."""
        temperature = self._distil.temperature
        weighted = self._of_learned(teacher_probabilities) * targets.sum(dim=1, keepdim=True)
        return temperature**2 * cross_entropy(logits / temperature, weighted)

    def _of_learned(self, chances: Tensor) -> Tensor:
        """Probabilities (rows, quantities), those of the learned classes alone, which then add up to 1."""
        if self._learned is None:
            return chances
        kept = (chances + LEAST) * self._learned
        return kept / kept.sum(dim=1, keepdim=True)

    def _total(self, quantities: Tensor) -> float:
        """What the photos of a step count together."""
        return len(quantities) if self._weights is None else float(self._weights[classes_of(quantities)].sum())


def cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Of each row of logits with what is wanted, both float (batch, quantities): float (batch,)."""
    return functional.cross_entropy(logits, wanted, reduction="none")


def at_least(logits: Tensor, fewest: Tensor) -> Tensor:
    """−log of the probability of `fewest` items or more, int64 (batch,), by logits (batch, quantities): float (batch,).

    Beyond the highest quantity there is one answer, which is then the right one.
    """
    numbers = torch.arange(logits.shape[1], device=logits.device)
    below = numbers[None, :] < fewest.clamp(max=logits.shape[1] - 1)[:, None]
    return logits.logsumexp(dim=1) - logits.masked_fill(below, -torch.inf).logsumexp(dim=1)


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
