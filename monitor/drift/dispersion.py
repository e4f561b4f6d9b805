"""How much more photos of a window resemble each other than independent ones would: those of one day, shelf or camera.

A window of n such photos says no more than one of fewer independent ones. How many follows from windows that are
neighbours: their means differ by chance alone, and the more, the more the photos within each resemble each other.
"""

from __future__ import annotations

import numpy as np

from binwatch.bundle import Reference
from binwatch.counts import CLASSES
from binwatch.reference import Signal
from monitor.drift.windows import Floats, PhotoSample

EACH = 4
"""Distribution functions are compared at each so-manieth quantile of the reference."""
MOST = 10.0
"""Largest dispersion of two neighbouring windows that counts: beyond it they are of before and after a change."""


def dispersion(
    window: PhotoSample, before: PhotoSample, reference: Reference, most: float = MOST
) -> dict[Signal, float]:
    """Squared difference of two windows, in units of its expectation for independent photos, but `most` at the most.

    Of every signal that both have photos of.
    """
    found = {}
    for signal in Signal:
        one, other = _features(signal, window, reference), _features(signal, before, reference)
        if one is not None and other is not None and min(len(one), len(other)) > 1:
            found[signal] = min(_dispersion(one, other), most)
    return found


def _features(signal: Signal, seen: PhotoSample, reference: Reference) -> Floats | None:
    """Shape (photos, features): what the signal's distance compares the means of. None without a reference of it."""
    if signal in (Signal.PREDICTED, Signal.EXPECTED):
        classes = seen.predicted if signal is Signal.PREDICTED else seen.expected
        return np.equal.outer(classes, np.arange(len(CLASSES))).astype(float)
    if signal is Signal.EMBEDDING:
        where = reference.embedding
        if where is None or seen.embeddings.shape[1:] != (len(where.mean),):
            return None
        features: Floats = (seen.embeddings - np.array(where.mean)) @ np.array(where.axes).T
        return features
    quantiles = np.array(reference.quantiles.get(signal, ()))
    values = seen.confidence if signal is Signal.CONFIDENCE else seen.properties.get(signal, np.empty(0))
    if len(quantiles) < 2:
        return None
    below: Floats = np.less_equal.outer(values, quantiles[EACH // 2 :: EACH]).astype(float)
    return below


def _dispersion(one: Floats, other: Floats) -> float:
    shift = one.mean(axis=0) - other.mean(axis=0)
    variance = np.concatenate([one, other]).var(axis=0, ddof=1).sum()
    expected = (1 / len(one) + 1 / len(other)) * variance
    return float(shift @ shift / expected) if expected > 0 else 1.0
