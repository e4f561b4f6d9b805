"""The distributions behind a drift verdict: a signal's values in the reference and in the window, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from binwatch.bundle import EmbeddingReference, Reference
from binwatch.counts import CLASSES
from binwatch.reference import Signal
from monitor.drift.windows import Floats, Ints, PhotoSample

INTERVALS = 24
"""Number of equal intervals in the histogram of a continuous signal."""


class DistributionKind(StrEnum):
    """What the numbers of a distribution are."""

    CLASSES = "classes"
    """Shares of the classes."""
    STRETCHES = "stretches"
    """Shares of equal intervals from `low` to `high`. Values outside are counted in the first and the last interval."""
    SHIFTS = "shifts"
    """Shift of the mean along each axis of the embedding, in standard deviations; 0 in the reference."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One signal in the reference and in a window. `labels`, `reference` and `window` have the same length."""

    kind: DistributionKind
    labels: list[str]
    reference: list[float]
    window: list[float]
    low: float | None = None
    high: float | None = None


def distributions(sample: PhotoSample, reference: Reference | None) -> dict[Signal, Distribution]:
    """Compute the distribution of every signal that both the reference and the window have."""
    if reference is None or not sample.size:
        return {}
    by_signal = {
        Signal.PREDICTED: _class_shares(reference.predicted, sample.predicted),
        Signal.EXPECTED: _class_shares(reference.labels, sample.expected),
    }
    for name, quantiles in reference.quantiles.items():
        if name in set(Signal):
            by_signal[Signal(name)] = _histogram(np.array(quantiles), sample.values(Signal(name)))
    if reference.embedding is not None:
        by_signal[Signal.EMBEDDING] = _mean_shifts(reference.embedding, sample.embeddings)
    return {signal: distribution for signal, distribution in by_signal.items() if distribution is not None}


def _class_shares(reference_counts: list[int], classes: Ints) -> Distribution | None:
    if not len(classes) or len(reference_counts) != len(CLASSES) or not sum(reference_counts):
        return None
    counts = np.bincount(classes, minlength=len(CLASSES))
    return Distribution(DistributionKind.CLASSES, list(CLASSES), _shares(np.array(reference_counts)), _shares(counts))


def _histogram(quantiles: Floats, values: Floats) -> Distribution | None:
    if not len(values) or len(quantiles) < 2:
        return None
    # Leave out half a per cent of the reference at each end: a single outlier would squeeze everything else.
    trimmed = quantiles[1:-1] if len(quantiles) > 4 else quantiles
    low = float(min(trimmed[0], np.quantile(values, 0.01)))
    high = float(max(trimmed[-1], np.quantile(values, 0.99)))
    if not high > low:
        return None
    edges = np.linspace(low, high, INTERVALS + 1)
    reference_levels = np.interp(edges, quantiles, np.linspace(0, 1, len(quantiles)))
    reference_levels[0], reference_levels[-1] = 0.0, 1.0
    counts, _ = np.histogram(values.clip(low, high), edges)
    labels = [f"{edge:.4g}" for edge in edges[:-1]]
    shares = _shares(np.diff(reference_levels)), _shares(counts)
    return Distribution(DistributionKind.STRETCHES, labels, *shares, low, high)


def _mean_shifts(reference: EmbeddingReference, embeddings: Floats) -> Distribution | None:
    if not len(embeddings) or embeddings.shape[1] != len(reference.mean):
        return None
    shifts = np.array(reference.axes) @ (embeddings.mean(axis=0, dtype=np.float64) - np.array(reference.mean))
    labels = [str(axis) for axis in range(1, len(shifts) + 1)]
    return Distribution(
        DistributionKind.SHIFTS, labels, [0.0] * len(shifts), [round(float(shift), 4) for shift in shifts]
    )


def _shares(values: Floats | Ints) -> list[float]:
    return [round(float(value), 5) for value in values / values.sum()]
