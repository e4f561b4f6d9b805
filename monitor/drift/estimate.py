"""How accurate the counts of a window probably are, without labels: what the model's own probabilities promise."""

from __future__ import annotations

import numpy as np

from binwatch.bundle import Reference
from monitor.drift.windows import PhotoSample


def estimated_accuracy(seen: PhotoSample, reference: Reference | None) -> float | None:
    """Expected share of right counts, 0 to 1. None without photos.

    A calibrated probability of 0.7 is right in 7 of 10 cases, so the mean of the counts' probabilities is the accuracy
    to expect (CBPE of NannyML). Where the bundle says how often each level of confidence was right on its reference
    photos, that is used instead: int8 arithmetic shifts probabilities a little. It holds while photos change; it
    cannot see that the same photo has come to mean another quantity.
    """
    if not seen.photos:
        return None
    if reference is None or len(reference.reliability) < 2:
        return float(seen.confidence.mean())
    confidence, accuracy = np.array(sorted(reference.reliability)).T
    return float(np.interp(seen.confidence, confidence, accuracy).mean())
