"""Calibration of probabilities: temperature scaling and prior shift.

The temperature divides all logits, so that probabilities equal the share of right counts (Guo et al. 2017, arXiv
1706.04599). The prior shift corrects them from the classes' shares among the training photos to their shares among the
bins that will be counted (Saerens et al. 2002, Neural Computation 14).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from binwatch.counts import CLASSES, MORE, in_classes
from binwatch.text import many

Floats = npt.NDArray[np.floating]

LOWEST, HIGHEST = 0.05, 20.0
PRIOR = 10.0
"""Weight of the prior for T = 1, in photos. If a few photos are all right, or all wrong, their loss has no minimum."""
MIN_PHOTOS = 100
"""With fewer photos the temperature is unreliable, and the card has a note."""
STEPS = 60
"""Steps of the search: the last interval is far below float32's resolution."""
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class PriorShift:
    """From the classes' shares in training to their shares among the bins that will be counted."""

    shares: tuple[float, ...]
    """Share of each class among the bins that will be counted; they add up to 1."""
    trained: tuple[int, ...]
    """Number of training photos of each class."""

    def logits(self, quantities: int = len(CLASSES)) -> npt.NDArray[np.float64]:
        """The term that is added to calibrated logits, float64 (quantities,): 0 for a class without training photos.

        All quantities beyond 5 get the term of their class.
        """
        trained = np.array(self.trained)
        seen = trained > 0
        found = np.zeros(len(CLASSES))
        found[seen] = np.log(np.array(self.shares)[seen] * trained.sum() / trained[seen])
        return np.concatenate([found, np.repeat(found[MORE:], quantities - len(CLASSES))])

    def weights(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Weights of photos that give each class its share, float64 (photos,); their mean is 1."""
        photos = np.bincount(labels, minlength=len(CLASSES))
        found = np.array(self.shares)[labels] / photos[labels]
        weights: npt.NDArray[np.float64] = found * (len(labels) / found.sum())
        return weights


def softmax(
    logits: Floats, temperature: float = 1.0, shift: npt.NDArray[np.float64] | float = 0.0
) -> npt.NDArray[np.float64]:
    """Probabilities, float64 (photos, quantities). `shift`, float64 (quantities,), is added after the division."""
    scaled = logits.astype(np.float64) / temperature + shift
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    total: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return total


def log_loss(
    logits: Floats, labels: npt.NDArray[np.int64], temperature: float = 1.0, shift: PriorShift | None = None
) -> float:
    """Mean negative logarithm of the probability of the label's class.

    `logits` are float (photos, quantities), `labels` class indexes, int64 (photos,). With `shift`, probabilities are
    corrected by it and photos are weighted by its shares.
    """
    moved = 0.0 if shift is None else shift.logits(logits.shape[1])
    given = in_classes(softmax(logits, temperature, moved))[np.arange(len(labels)), labels]
    weights = None if shift is None else shift.weights(labels)
    return float(np.average(-np.log(np.maximum(given, 1e-300)), weights=weights))


def best_temperature(logits: Floats, labels: npt.NDArray[np.int64], shift: PriorShift | None = None) -> float:
    """The temperature with the smallest log loss, by golden-section search: the loss has one minimum in 1/T.

    A prior, PRIOR · (1/T − 1 − ln 1/T), is added to the loss of all photos. With 1,000 photos it moves T by less than
    1 %; with three it keeps T near 1, and without any at 1.
    """

    def loss(inverse: float) -> float:
        given = len(labels) * log_loss(logits, labels, 1 / inverse, shift) if len(labels) else 0.0
        return given + PRIOR * (inverse - 1 - math.log(inverse))

    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)


def calibration_note(temperature: float, photos: int) -> list[str]:
    """A note for the card, if the temperature was fitted to too few photos."""
    if photos >= MIN_PHOTOS:
        return []
    return [
        f"The temperature {temperature:.2f} was fitted to {many(photos, 'validation photo')}, and held near 1: with"
        f" fewer than {MIN_PHOTOS}, probabilities may be too high or too low."
    ]
