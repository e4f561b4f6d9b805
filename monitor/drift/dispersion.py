"""Dispersion: how much more the photos of a window resemble each other than independent photos would.

Photos of one day, shelf or camera resemble each other, so n of them carry the information of fewer independent ones.
How many fewer is estimated from neighbouring windows: without drift their means differ by chance alone, and the
more the photos within each window resemble each other, the larger these differences are.
"""

from __future__ import annotations

import numpy as np

from binwatch.bundle import Reference
from binwatch.counts import CLASSES
from binwatch.reference import Signal
from monitor.drift.windows import Floats, PhotoSample

QUANTILE_STEP = 4
"""Distribution functions are compared at every QUANTILE_STEP-th quantile of the reference."""
MAX_DISPERSION = 10.0
"""Upper bound of the dispersion of two neighbouring windows. A larger value means that something changed in between."""


def dispersion(
    sample: PhotoSample, previous: PhotoSample, reference: Reference, max_dispersion: float = MAX_DISPERSION
) -> dict[Signal, float]:
    """Estimate the dispersion of every signal that both samples have values of.

    It is the squared difference of the two means, divided by its expectation for independent photos, and at most
    `max_dispersion`.
    """
    dispersions = {}
    for signal in Signal:
        features, previous_features = (_features(signal, photos, reference) for photos in (sample, previous))
        if features is None or previous_features is None:
            continue
        if min(len(features), len(previous_features)) > 1:
            dispersions[signal] = min(_dispersion(features, previous_features), max_dispersion)
    return dispersions


def _features(signal: Signal, sample: PhotoSample, reference: Reference) -> Floats | None:
    """Return the features whose means the signal's distance compares, shape (photos, features).

    None if the reference lacks the signal, or has embeddings of another size.
    """
    if signal in (Signal.PREDICTED, Signal.EXPECTED):
        classes = sample.predicted if signal is Signal.PREDICTED else sample.expected
        return np.equal.outer(classes, np.arange(len(CLASSES))).astype(float)
    if signal is Signal.EMBEDDING:
        embedding = reference.embedding
        if embedding is None or sample.embeddings.shape[1:] != (len(embedding.mean),):
            return None
        projections: Floats = (sample.embeddings - np.array(embedding.mean)) @ np.array(embedding.axes).T
        return projections
    quantiles = np.array(reference.quantiles.get(signal, ()))
    if len(quantiles) < 2:
        return None
    thresholds = quantiles[QUANTILE_STEP // 2 :: QUANTILE_STEP]
    is_below: Floats = np.less_equal.outer(sample.values(signal), thresholds).astype(float)
    return is_below


def _dispersion(a: Floats, b: Floats) -> float:
    shift = a.mean(axis=0) - b.mean(axis=0)
    variance = np.concatenate([a, b]).var(axis=0, ddof=1).sum()
    expected = (1 / len(a) + 1 / len(b)) * variance
    return float(shift @ shift / expected) if expected > 0 else 1.0
