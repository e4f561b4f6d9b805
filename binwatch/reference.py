"""Computes the drift reference of a model bundle. The trainer computes it, and the monitor reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from binwatch.bundle import EmbeddingReference, Reference
from binwatch.counts import CLASSES, CountRule, predict_counts

N_QUANTILES = 201
"""Number of quantiles of each signal: steps of 0.5 %, finer than 1,000 photos can resolve."""
MIN_REFERENCE_BINS = 100
"""Minimum number of bins in a usable reference. With fewer bins, differences may be due to chance."""
MAX_AXES = 16
"""Maximum number of principal axes of the embedding. Further axes have little variance, and estimating them would take
more photos."""
_RELIABILITY_DIGITS = 5
_RELIABILITY_BINS = 10
"""Number of equally large groups, by confidence, of the reliability curve."""
MIN_DEVIATION = 1e-6
"""Minimum standard deviation of an axis. Dividing by a smaller one would magnify rounding errors."""

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


class Signal(StrEnum):
    """Signals that are monitored for drift."""

    PREDICTED = "predicted"
    EXPECTED = "expected"
    CONFIDENCE = "confidence"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    SHARPNESS = "sharpness"
    SHAPE = "shape"
    BYTES = "bytes"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """Model outputs, labels and properties of n reference photos."""

    probabilities: Floats
    """Shape (n, classes)."""
    labels: Ints
    """Class of the labelled quantity, shape (n,)."""
    embeddings: Floats
    """Shape (n, embedding_size)."""
    properties: Mapping[Signal, Floats]
    """Continuous signal → its values, shape (n,)."""
    groups: int | None = None
    """Number of bins, or of groups of photos that may show the same bin; None if unknown."""
    rule: CountRule = CountRule.MODE


def make_reference(data: ReferenceData) -> Reference:
    """Compute the reference from photos that were not used for training."""
    predicted = predict_counts(data.rule, data.probabilities)
    confidence = data.probabilities[np.arange(len(predicted)), predicted]
    signals = {Signal.CONFIDENCE: confidence, **data.properties}
    return Reference(
        photos=len(predicted),
        predicted=np.bincount(predicted, minlength=len(CLASSES)).tolist(),
        labels=np.bincount(data.labels, minlength=len(CLASSES)).tolist(),
        groups=data.groups,
        confidence=quantiles(confidence, 11),
        quantiles={signal.value: quantiles(values) for signal, values in signals.items()},
        embedding=_embedding_reference(data.embeddings),
        reliability=_reliability_curve(confidence, predicted == data.labels),
    )


def effective_sample_size(reference: Reference) -> int:
    """Return the effective sample size of a reference.

    It is the number of bins, since photos of the same bin are correlated; the number of photos if that is unknown.
    """
    return min(reference.groups or reference.photos, reference.photos)


def round_for_card(values: Floats) -> list[float]:
    """Round to the card's precision of six significant digits.

    Values that are compared with the card's quantiles must be rounded as well: otherwise 4/3 would be above its own
    quantile, which is stored as 1.33333.
    """
    return [float(f"{value:.6g}") for value in values]


def quantiles(values: Floats, count: int = N_QUANTILES) -> list[float]:
    """Compute `count` evenly spaced quantiles from 0 to 100 %."""
    return round_for_card(np.quantile(values, np.linspace(0, 1, count)))


def _embedding_reference(embeddings: Floats) -> EmbeddingReference | None:
    mean = embeddings.mean(axis=0, dtype=np.float64)
    _, singular_values, directions = np.linalg.svd(embeddings.astype(np.float64) - mean, full_matrices=False)
    deviations = singular_values / np.sqrt(max(len(embeddings) - 1, 1))
    n_axes = min(MAX_AXES, int((deviations > MIN_DEVIATION).sum()))
    if not n_axes:
        return None
    axes = directions[:n_axes] / deviations[:n_axes, None]
    return EmbeddingReference(mean=round_for_card(mean), axes=[round_for_card(axis) for axis in axes])


def _reliability_curve(confidence: Floats, is_correct: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return (mean confidence, accuracy) of each tenth of the photos by confidence."""
    order = np.argsort(confidence, kind="stable")
    groups = [group for group in np.array_split(order, _RELIABILITY_BINS) if len(group)]
    return [
        (
            round(float(confidence[group].mean()), _RELIABILITY_DIGITS),
            round(float(is_correct[group].mean()), _RELIABILITY_DIGITS),
        )
        for group in groups
    ]
