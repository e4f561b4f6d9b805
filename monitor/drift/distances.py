"""Distances between a window and the reference, one for each kind of signal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from binwatch.bundle import EmbeddingReference

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.number]


def jensen_shannon(window: Numbers, reference: Numbers) -> Floats:
    """Jensen–Shannon divergence of counts by category, in bits: 0 (identical) to 1 (disjoint).

    The shapes (…, categories) are broadcast. Unlike PSI, the divergence is defined when a category is empty on one
    side. Source: Lin 1991, Divergence measures based on the Shannon entropy.
    """
    p = window / window.sum(axis=-1, keepdims=True)
    q = reference / reference.sum(axis=-1, keepdims=True)
    mixture = (p + q) / 2
    return (_relative_entropy(p, mixture) + _relative_entropy(q, mixture)) / 2


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    ratio = np.divide(p, q, out=np.ones(np.broadcast_shapes(p.shape, q.shape)), where=p > 0)
    entropy: Floats = (p * np.log2(ratio)).sum(axis=-1)
    return entropy


def kolmogorov_smirnov(values: Floats, quantiles: Floats) -> float:
    """Largest difference between the distribution functions of a window's values and of a reference.

    `quantiles` are the reference's, evenly spaced from 0 to 100 %; the reference is taken as uniform between them.
    """
    ordered, distinct, n = np.sort(values), np.unique(values), len(values)
    reference_below, reference_up_to = levels_at(distinct, quantiles)
    window_below = np.searchsorted(ordered, distinct, side="left") / n
    window_up_to = np.searchsorted(ordered, distinct, side="right") / n
    return float(max(np.abs(window_up_to - reference_up_to).max(), np.abs(window_below - reference_below).max()))


def levels_at(values: Floats, quantiles: Floats) -> tuple[Floats, Floats]:
    """Shares of the reference below each value, and up to and including it. They differ where quantiles coincide."""
    levels = np.linspace(0, 1, len(quantiles))
    first = np.searchsorted(quantiles, values, side="left")
    last = np.searchsorted(quantiles, values, side="right") - 1
    interpolated = np.interp(values, quantiles, levels)
    is_quantile = last >= first
    below = np.where(is_quantile, levels[first.clip(max=len(levels) - 1)], interpolated)
    return below, np.where(is_quantile, levels[last], interpolated)


def mean_shift(embeddings: Floats, reference: EmbeddingReference) -> float:
    """Mahalanobis distance of the mean embedding from the reference's, along the reference's main axes.

    Its unit is the standard deviation of the reference. Hotelling's T² is its square times the size of the window.
    """
    shift = embeddings.mean(axis=0, dtype=np.float64) - np.array(reference.mean)
    return float(np.linalg.norm(np.array(reference.axes) @ shift))
