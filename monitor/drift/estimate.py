"""Estimated accuracy of the counts in a window, without labels: from the model's own probabilities."""

from __future__ import annotations

import numpy as np

from binwatch.bundle import Reference
from monitor.drift.windows import PhotoSample


def estimated_accuracy(sample: PhotoSample, reference: Reference | None) -> float | None:
    """Estimate the share of correct counts, 0 to 1. None without photos.

    Counts with a calibrated probability of 0.7 are correct in 7 of 10 cases, so the mean probability of the counts
    estimates the accuracy (CBPE of NannyML). If the bundle has the accuracy by confidence on its reference photos, that
    is used instead, because int8 arithmetic shifts probabilities a little. The estimate holds even if other kinds of
    photos become common; it cannot notice that the same photo now stands for another quantity.
    """
    if not sample.size:
        return None
    if reference is None or len(reference.reliability) < 2:
        return float(sample.confidence.mean())
    confidence, accuracy = np.array(sorted(reference.reliability)).T
    return float(np.interp(sample.confidence, confidence, accuracy).mean())
