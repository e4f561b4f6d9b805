"""Probabilities that mean what they say, of bins as they are.

Temperature is one number that makes answers as sure as they should be (Guo et al. 2017, arXiv 1706.04599). The prior
shift moves them from the training photos' shares of each class to those of the bins that will be counted (Saerens et
al. 2002, Neural Computation 14).
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
"""Weight of T = 1, in photos. The loss of a few photos that are all right, or all wrong, has no minimum at any T."""
FEW = 100
"""Photos with fewer than which the temperature says little; the card notes it."""
STEPS = 60
"""Halvings of the search interval: far below float32's resolution."""
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class PriorShift:
    """From the classes' shares in training to their shares among the bins that will be counted."""

    shares: tuple[float, ...]
    """Among the bins that will be counted, of each class; they add up to 1."""
    trained: tuple[int, ...]
    """Training photos of each class."""

    def logits(self, quantities: int = len(CLASSES)) -> npt.NDArray[np.float64]:
        """What is added to that many calibrated logits, float64 (quantities,): 0 for a class without training photos.

        All quantities beyond 5 move together, as their class does.
        """
        trained = np.array(self.trained)
        seen = trained > 0
        found = np.zeros(len(CLASSES))
        found[seen] = np.log(np.array(self.shares)[seen] * trained.sum() / trained[seen])
        return np.concatenate([found, np.repeat(found[MORE:], quantities - len(CLASSES))])

    def weights(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What each photo counts so that photos of each class weigh its share, float64 (photos,); the mean is 1."""
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
    """Mean negative logarithm of the probability given to the label's class; with `shift`, of bins as it says they are.

    `logits` are float (photos, quantities), `labels` class indexes, int64 (photos,).
    """
    moved = 0.0 if shift is None else shift.logits(logits.shape[1])
    given = in_classes(softmax(logits, temperature, moved))[np.arange(len(labels)), labels]
    weights = None if shift is None else shift.weights(labels)
    return float(np.average(-np.log(np.maximum(given, 1e-300)), weights=weights))


def best_temperature(logits: Floats, labels: npt.NDArray[np.int64], shift: PriorShift | None = None) -> float:
    """The temperature with the smallest log loss, by golden-section search: the loss has one minimum in 1/T.

    To the loss of all photos is added that of a prior, PRIOR · (1/T − 1 − ln 1/T). Of 1,000 photos it moves T by less
    than 1 %; of three it keeps T near 1, and of none at 1.
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
    """A sentence for the card, if the temperature was fitted to too few photos to be trusted."""
    if photos >= FEW:
        return []
    return [
        f"The temperature {temperature:.2f} was fitted to {many(photos, 'validation photo')}, and held near 1: with"
        f" fewer than {FEW}, probabilities may be too sure or not sure enough."
    ]
