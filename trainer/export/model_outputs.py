"""What a model answers to photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from binwatch.counts import EVERY, CountRule, in_classes
from trainer.data.dataset import PhotoSet

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """What a model answers to photos."""

    photos: PhotoSet
    name: str
    """Of the photos: a split, or "all"."""
    distribution: Floats
    """Shape (photos, quantities), in their order."""
    embeddings: Floats
    """Shape (photos, embedding)."""
    classes: tuple[int, ...] = EVERY
    """Indexes of the classes that the model can answer."""
    rule: CountRule = CountRule.MODE

    @property
    def probabilities(self) -> Floats:
        """Of the classes, shape (photos, classes)."""
        return in_classes(self.distribution)
