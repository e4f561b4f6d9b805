"""The drift reference in a bundle: computed by the trainer, read by the monitor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from binwatch.bundle import EmbeddingReference, Reference
from binwatch.counts import CLASSES, CountRule, counts_by

QUANTILES = 201
"""Quantiles in steps of half a per cent, which is more precise than 1,000 photos can show."""
ENOUGH = 100
"""Least number of bins in a usable reference. With fewer, differences may be chance."""
AXES = 16
"""Number of principal directions of the embedding. More directions vary little, and would need more photos."""
_DIGITS = 5
_BINS = 10
FLAT = 1e-6
"""Standard deviation below which a direction counts as constant: dividing by it would magnify rounding errors."""

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


class Signal(StrEnum):
    """A signal that is monitored for drift."""

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
class Observed:
    """The data of n reference photos. `properties`: values of the continuous signals."""

    probabilities: Floats
    """Shape (n, classes)."""
    labels: Ints
    """Class of the labelled quantity, shape (n,)."""
    embeddings: Floats
    """Shape (n, embedding_size)."""
    properties: Mapping[Signal, Floats]
    groups: int | None = None
    """Number of bins, or of groups of photos that may show the same bin."""
    rule: CountRule = CountRule.MODE


def make_reference(observed: Observed) -> Reference:
    """Compute the reference from photos that the model did not learn from."""
    predicted = counts_by(observed.rule, observed.probabilities)
    confidence = observed.probabilities[np.arange(len(predicted)), predicted]
    signals = {Signal.CONFIDENCE: confidence, **observed.properties}
    return Reference(
        photos=len(predicted),
        predicted=np.bincount(predicted, minlength=len(CLASSES)).tolist(),
        labels=np.bincount(observed.labels, minlength=len(CLASSES)).tolist(),
        groups=observed.groups,
        confidence=quantiles(confidence, 11),
        quantiles={signal.value: quantiles(values) for signal, values in signals.items()},
        embedding=_embedding(observed.embeddings),
        reliability=_reliability(confidence, predicted == observed.labels),
    )


def independent(reference: Reference) -> int:
    """Effective sample size of a reference: photos of one bin resemble each other."""
    return min(reference.groups or reference.photos, reference.photos)


def rounded(values: Floats) -> list[float]:
    """Round to the card's precision. Values compared with its quantiles must be rounded, too: 1.33333 is below 4/3."""
    return [float(f"{value:.6g}") for value in values]


def quantiles(values: Floats, number: int = QUANTILES) -> list[float]:
    """Evenly spaced quantiles from 0 to 100 %."""
    return rounded(np.quantile(values, np.linspace(0, 1, number)))


def _embedding(embeddings: Floats) -> EmbeddingReference | None:
    mean = embeddings.mean(axis=0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(embeddings.astype(np.float64) - mean, full_matrices=False)
    deviations = spread / np.sqrt(max(len(embeddings) - 1, 1))
    kept = min(AXES, int((deviations > FLAT).sum()))
    if not kept:
        return None
    axes = directions[:kept] / deviations[:kept, None]
    return EmbeddingReference(mean=rounded(mean), axes=[rounded(axis) for axis in axes])


def _reliability(confidence: Floats, right: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, _BINS) if len(part)]
    return [
        (round(float(confidence[part].mean()), _DIGITS), round(float(right[part].mean()), _DIGITS)) for part in parts
    ]
