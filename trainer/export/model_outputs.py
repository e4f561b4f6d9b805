"""The outputs of a model for a set of photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from binwatch.counts import CLASS_INDEXES, CountRule, class_probabilities
from trainer.data.dataset import PhotoSet

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """The outputs of a model for a set of photos."""

    photos: PhotoSet
    name: str
    """The split of the photos, or "all"."""
    distribution: Floats
    """Probabilities of the quantities, shape (photos, quantities), in the order of `photos`."""
    embeddings: Floats
    """Shape (photos, embedding)."""
    classes: tuple[int, ...] = CLASS_INDEXES
    """Indices of the classes that the model can predict."""
    rule: CountRule = CountRule.MODE

    @property
    def probabilities(self) -> Floats:
        """Probabilities of the classes, shape (photos, classes)."""
        return class_probabilities(self.distribution)
