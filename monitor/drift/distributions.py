"""What a verdict on drift is about: a signal's values in the reference and in the window, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from binwatch.bundle import EmbeddingReference, Reference
from binwatch.counts import CLASSES
from binwatch.reference import Signal
from monitor.drift.windows import Floats, Ints, PhotoSample

STRETCHES = 24
"""Parts of equal width that a continuous signal's range is shown in."""


class DistributionKind(StrEnum):
    """What the numbers of a distribution are."""

    CLASSES = "classes"
    """Shares of the classes."""
    STRETCHES = "stretches"
    """Shares of stretches of equal width, from `low` to `high`; what is beyond them is in the first and the last."""
    SHIFTS = "shifts"
    """How far the mean has moved along each axis of the embedding, in standard deviations; 0 in the reference."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One signal in the reference and in a window. Both lists have one number for each label."""

    kind: DistributionKind
    labels: list[str]
    reference: list[float]
    window: list[float]
    low: float | None = None
    high: float | None = None


def distributions(seen: PhotoSample, reference: Reference | None) -> dict[Signal, Distribution]:
    """Every signal that the reference knows and the window has values of."""
    if reference is None or not seen.photos:
        return {}
    found = {
        Signal.PREDICTED: _classes(reference.predicted, seen.predicted),
        Signal.EXPECTED: _classes(reference.labels, seen.expected),
    }
    for name, quantiles in reference.quantiles.items():
        signal = Signal(name) if name in set(Signal) else None
        if signal is not None:
            values = seen.confidence if signal is Signal.CONFIDENCE else seen.properties.get(signal, np.empty(0))
            found[signal] = _stretches(np.array(quantiles), values)
    if reference.embedding is not None:
        found[Signal.EMBEDDING] = _shifts(reference.embedding, seen.embeddings)
    return {signal: one for signal, one in found.items() if one is not None}


def _classes(counts: list[int], values: Ints) -> Distribution | None:
    if not len(values) or len(counts) != len(CLASSES) or not sum(counts):
        return None
    here = np.bincount(values, minlength=len(CLASSES))
    return Distribution(DistributionKind.CLASSES, list(CLASSES), _shares(np.array(counts)), _shares(here))


def _stretches(quantiles: Floats, values: Floats) -> Distribution | None:
    if not len(values) or len(quantiles) < 2:
        return None
    # Without the outermost half per cent of the reference: one odd photo would leave the rest no room.
    trimmed = quantiles[1:-1] if len(quantiles) > 4 else quantiles
    low = float(min(trimmed[0], np.quantile(values, 0.01)))
    high = float(max(trimmed[-1], np.quantile(values, 0.99)))
    if not high > low:
        return None
    edges = np.linspace(low, high, STRETCHES + 1)
    below = np.interp(edges, quantiles, np.linspace(0, 1, len(quantiles)))
    below[0], below[-1] = 0.0, 1.0
    here, _ = np.histogram(values.clip(low, high), edges)
    labels = [f"{edge:.4g}" for edge in edges[:-1]]
    return Distribution(DistributionKind.STRETCHES, labels, _shares(np.diff(below)), _shares(here), low, high)


def _shifts(where: EmbeddingReference, embeddings: Floats) -> Distribution | None:
    if not len(embeddings) or embeddings.shape[1] != len(where.mean):
        return None
    shift = np.array(where.axes) @ (embeddings.mean(axis=0, dtype=np.float64) - np.array(where.mean))
    labels = [str(axis) for axis in range(1, len(shift) + 1)]
    return Distribution(
        DistributionKind.SHIFTS, labels, [0.0] * len(shift), [round(float(value), 4) for value in shift]
    )


def _shares(values: Floats | Ints) -> list[float]:
    return [round(float(value), 5) for value in values / values.sum()]
