"""The training loss: cross entropy with soft targets, class weights and distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from binwatch.counts import CLASS_INDEXES, CLASSES, MAX_EXACT_COUNT
from trainer.config import DistilConfig, TrainConfig
from trainer.models.targets import classes_of, expand_to_quantities, min_quantities, soft_targets

NO_TEACHERS = DistilConfig()
EPSILON = 1e-9
"""Added to each probability before normalisation: a teacher may give all learned classes a probability of 0."""


class Loss:
    """The configured loss."""

    def __init__(
        self,
        config: TrainConfig,
        weights: Tensor | None = None,
        distil: DistilConfig = NO_TEACHERS,
        classes: Sequence[int] = CLASS_INDEXES,
        highest: int = MAX_EXACT_COUNT,
    ) -> None:
        """`weights` are one per class, float (classes,), or None.

        `classes` are the indexes of the classes that are learned; targets of all others are 0.
        """
        self._sigma = config.ordinal_sigma if config.loss == "ordinal" else 0.0
        self._highest = highest
        self._weights = weights  # on the CPU, so that a step's sum needs no CPU–GPU sync
        self._device_weights = None if weights is None else weights.to(config.device)
        self._distil = distil
        self._learned = None
        if tuple(classes) != CLASS_INDEXES:
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
        """Return a batch's contribution to its step's (weighted) mean loss; the contributions of a step add up to it.

        `logits` are (batch, quantities), and `quantities` are the items per photo, int64 (batch,). `step_quantities`
        are the items per photo of the whole step, on the CPU; None if the batch is the whole step.
        `teacher_probabilities` are float (batch, quantities).
        """
        targets = self.targets(quantities)
        losses = cross_entropy(logits, targets)
        # If the label is "n or more", every prediction of at least n is right.
        losses = torch.where(quantities < 0, at_least_loss(logits, ~quantities) * targets.sum(dim=1), losses)
        if teacher_probabilities is not None:
            distillation_loss = self._distillation_loss(logits, targets, teacher_probabilities)
            losses = torch.lerp(losses, distillation_loss, self._distil.share)
        step = quantities.cpu() if step_quantities is None else step_quantities
        return losses.sum() / (len(step) if self._weights is None else float(self._weights[classes_of(step)].sum()))

    def targets(self, quantities: Tensor) -> Tensor:
        """Return targets, float32 (batch, quantities). Each row adds up to the photo's weight: 1, or its class's."""
        targets = self._renormalise(soft_targets(min_quantities(quantities), self._sigma, self._highest))
        if self._device_weights is None:
            return targets
        return targets * self._device_weights[classes_of(quantities)][:, None]

    def _distillation_loss(self, logits: Tensor, targets: Tensor, teacher_probabilities: Tensor) -> Tensor:
        """Return the cross entropy with the teachers, (batch,).

        The factor temperature² keeps the scale of the gradients (Hinton et al. 2015).
        """
        temperature = self._distil.temperature
        weighted = self._renormalise(teacher_probabilities) * targets.sum(dim=1, keepdim=True)
        return temperature**2 * cross_entropy(logits / temperature, weighted)

    def _renormalise(self, probabilities: Tensor) -> Tensor:
        """Set probabilities (batch, quantities) of classes that are not learned to 0; the others then add up to 1."""
        if self._learned is None:
            return probabilities
        learned = (probabilities + EPSILON) * self._learned
        return learned / learned.sum(dim=1, keepdim=True)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each row, float (batch,); logits and targets are float (batch, quantities)."""
    return functional.cross_entropy(logits, targets, reduction="none")


def at_least_loss(logits: Tensor, minimum: Tensor) -> Tensor:
    """Return −log of the probability of `minimum` items or more, float (batch,).

    `logits` are (batch, quantities), `minimum` is int64 (batch,). All quantities beyond the highest have one output.
    """
    quantities = torch.arange(logits.shape[1], device=logits.device)
    below = quantities[None, :] < minimum.clamp(max=logits.shape[1] - 1)[:, None]
    return logits.logsumexp(dim=1) - logits.masked_fill(below, -torch.inf).logsumexp(dim=1)


def class_weights(labels: npt.NDArray[np.int64], kind: str) -> Tensor | None:
    """Return each class's weight in the loss, float (classes,), larger for rare classes. The mean over `labels` is 1.

    "balanced" gives every class the same total weight. "sqrt" is between that and equal weights, because large weights
    of a few photos make the training noisy. "none" returns None.
    """
    if kind == "none":
        return None
    photos: npt.NDArray[Any] = np.bincount(labels, minlength=len(CLASSES))
    weights = (1 / np.maximum(photos, 1)) ** (1.0 if kind == "balanced" else 0.5)
    return torch.from_numpy(weights / weights[labels].mean()).float()
