"""Which classes a model can answer: those of which there were photos to learn from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from binwatch.counts import CLASSES, EVERY
from trainer.models.targets import of_each

NEVER = -1e4
"""Logit of a class that is never answered. At any temperature its probability is 0, in half precision, too; unlike
infinity it makes no loss of 0 × infinity."""


class ClassMask(nn.Module):
    """Logits (batch, quantities) in and out; those of the classes that were not learned become NEVER.

    Quantities beyond 5 are one class here: all of them are learned or none.

    The classes are no weights: a checkpoint names them beside its weights.
    """

    absent: Tensor

    def __init__(self, quantities: int) -> None:
        super().__init__()
        self.classes: tuple[int, ...] = EVERY
        self.register_buffer("absent", torch.zeros(quantities, dtype=torch.bool), persistent=False)

    def limit(self, classes: Iterable[int]) -> None:
        """Answer only these classes from now on, given by their indexes."""
        self.classes = tuple(classes)
        absent = torch.ones(len(CLASSES), dtype=torch.bool)
        absent[list(self.classes)] = False
        self.absent.copy_(of_each(absent, len(self.absent)))

    def forward(self, logits: Tensor) -> Tensor:
        if self.classes == EVERY:
            return logits
        return logits.masked_fill(self.absent, NEVER)
