"""Temperature: one number that makes probabilities mean what they say (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

LOWEST, HIGHEST = 0.05, 20.0
STEPS = 60
"""Halvings of the search interval: far below float32's resolution."""
GOLDEN = (5**0.5 - 1) / 2


def softmax(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities, float64 (photos, classes)."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    total: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return total


def log_loss(logits: Floats, labels: npt.NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean negative logarithm of the probability given to the label."""
    given = softmax(logits, temperature)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(given, 1e-300)).mean())


def best_temperature(logits: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The temperature with the smallest log loss, by golden-section search: the loss has one minimum in 1/T."""
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if log_loss(logits, labels, 1 / left) < log_loss(logits, labels, 1 / right):
            high = right
        else:
            low = left
    return 2 / (low + high)
