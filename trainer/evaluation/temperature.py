"""Calibration of probabilities: temperature scaling and prior shift.

The temperature divides all logits, so that a confidence matches the share of right counts (Guo et al. 2017, arXiv
1706.04599). The prior shift adjusts probabilities from the classes' shares among the training photos to their shares
among the bins that will be counted (Saerens et al. 2002, Neural Computation 14).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from binwatch.counts import CLASSES, MORE_THAN_5, class_probabilities
from binwatch.text import count_noun

Floats = npt.NDArray[np.floating]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
PRIOR_WEIGHT = 10.0
"""Weight of the prior for T = 1, in photos. Without it, the loss has no minimum if all photos are counted right."""
MIN_RELIABLE_PHOTOS = 100
"""Minimum number of photos for a reliable temperature. With fewer, the card gets a note."""
SEARCH_STEPS = 60
"""Number of steps of the golden-section search: the last interval is far below float32's resolution."""
INVERSE_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class PriorShift:
    """The shift from the classes' shares in training to their shares among the bins that will be counted."""

    shares: tuple[float, ...]
    """Share of each class among the bins that will be counted. The shares add up to 1."""
    training_photos: tuple[int, ...]
    """Number of training photos of each class."""

    def logits(self, quantities: int = len(CLASSES)) -> npt.NDArray[np.float64]:
        """Return the terms to add to calibrated logits, float64 (quantities,): 0 for a class without training photos.

        All quantities beyond 5 get the term of their class.
        """
        photos = np.array(self.training_photos)
        learned = photos > 0
        terms = np.zeros(len(CLASSES))
        terms[learned] = np.log(np.array(self.shares)[learned] * photos.sum() / photos[learned])
        return np.concatenate([terms, np.repeat(terms[MORE_THAN_5:], quantities - len(CLASSES))])

    def weights(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return photo weights that give each class its share, float64 (photos,). Their mean is 1."""
        photos = np.bincount(labels, minlength=len(CLASSES))
        unscaled = np.array(self.shares)[labels] / photos[labels]
        weights: npt.NDArray[np.float64] = unscaled * (len(labels) / unscaled.sum())
        return weights


def softmax(
    logits: Floats, temperature: float = 1.0, shift: npt.NDArray[np.float64] | float = 0.0
) -> npt.NDArray[np.float64]:
    """Return probabilities, float64 (photos, quantities). `shift`, float64 (quantities,), is added to scaled logits."""
    scaled = logits.astype(np.float64) / temperature + shift
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def log_loss(
    logits: Floats, labels: npt.NDArray[np.int64], temperature: float = 1.0, shift: PriorShift | None = None
) -> float:
    """Return the mean negative log probability of the label's class.

    `logits` are float (photos, quantities), `labels` are class indexes, int64 (photos,). With `shift`, probabilities
    are shifted by it, and photos are weighted by its shares.
    """
    shift_logits = 0.0 if shift is None else shift.logits(logits.shape[1])
    likelihoods = class_probabilities(softmax(logits, temperature, shift_logits))[np.arange(len(labels)), labels]
    weights = None if shift is None else shift.weights(labels)
    return float(np.average(-np.log(np.maximum(likelihoods, 1e-300)), weights=weights))


def best_temperature(logits: Floats, labels: npt.NDArray[np.int64], shift: PriorShift | None = None) -> float:
    """Return the temperature with the smallest log loss, by golden-section search: the loss has one minimum in 1/T.

    A prior, PRIOR_WEIGHT · (1/T − 1 − ln 1/T), is added to the summed loss. With 1,000 photos it changes T by less than
    1 %; with three it keeps T near 1, and with none at 1.
    """

    def loss(inverse: float) -> float:
        photo_loss = len(labels) * log_loss(logits, labels, 1 / inverse, shift) if len(labels) else 0.0
        return photo_loss + PRIOR_WEIGHT * (inverse - 1 - math.log(inverse))

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(SEARCH_STEPS):
        left, right = high - INVERSE_GOLDEN_RATIO * (high - low), low + INVERSE_GOLDEN_RATIO * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)


def calibration_note(temperature: float, photos: int) -> list[str]:
    """Return a note for the card if the temperature was fitted to too few photos."""
    if photos >= MIN_RELIABLE_PHOTOS:
        return []
    return [
        f"The temperature {temperature:.2f} was fitted to {count_noun(photos, 'validation photo')}, and held near 1:"
        f" with fewer than {MIN_RELIABLE_PHOTOS}, probabilities may be too high or too low."
    ]
