"""Restriction of a model's predictions to the classes that its training photos show."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from binwatch.counts import CLASS_INDEXES, CLASSES
from trainer.models.targets import expand_to_quantities

MASKED_LOGIT = -1e4
"""Logit of a class that the model cannot predict. Its probability is 0 at any temperature, also in half precision.
Unlike infinity, it cannot make the loss NaN (0 × infinity)."""


class ClassMask(nn.Module):
    """Logits (batch, quantities) in and out. Logits of classes that the model cannot predict become MASKED_LOGIT.

    Quantities beyond 5 are one class here: the model can predict all of them or none. A checkpoint stores the classes
    separately from its weights.
    """

    absent: Tensor

    def __init__(self, quantities: int) -> None:
        super().__init__()
        self.classes: tuple[int, ...] = CLASS_INDEXES
        self.register_buffer("absent", torch.zeros(quantities, dtype=torch.bool), persistent=False)

    def restrict_to(self, classes: Iterable[int]) -> None:
        """Restrict predictions to `classes`, given by their indexes."""
        self.classes = tuple(classes)
        absent = torch.ones(len(CLASSES), dtype=torch.bool)
        absent[list(self.classes)] = False
        self.absent.copy_(expand_to_quantities(absent, len(self.absent)))

    def forward(self, logits: Tensor) -> Tensor:
        if self.classes == CLASS_INDEXES:
            return logits
        return logits.masked_fill(self.absent, MASKED_LOGIT)
