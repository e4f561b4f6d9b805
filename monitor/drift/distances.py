"""How far a window is from the reference: one proper distance for each kind of signal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from binwatch.bundle import EmbeddingReference

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.number]


def jensen_shannon(window: Numbers, reference: Numbers) -> Floats:
    """Jensen–Shannon divergence in bits, 0 (the same) to 1 (nothing in common), of counts by category.

    Shapes (…, categories) that broadcast. Unlike PSI it needs no care for categories that one side lacks.
    Source: Lin 1991, Divergence measures based on the Shannon entropy.
    """
    p = window / window.sum(axis=-1, keepdims=True)
    q = reference / reference.sum(axis=-1, keepdims=True)
    middle = (p + q) / 2
    return (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    ratio = np.divide(p, q, out=np.ones(np.broadcast_shapes(p.shape, q.shape)), where=p > 0)
    found: Floats = (p * np.log2(ratio)).sum(axis=-1)
    return found


def kolmogorov_smirnov(window: Floats, quantiles: Floats) -> float:
    """Largest difference between the distribution functions of the window and of a reference known by its quantiles.

    `quantiles` are evenly spaced from 0 to 100 %; between two of them the reference is taken as even.
    """
    values = np.unique(window)
    ordered = np.sort(window)
    n = len(ordered)
    below, up_to = levels_at(values, quantiles)
    own_below = np.searchsorted(ordered, values, side="left") / n
    own_up_to = np.searchsorted(ordered, values, side="right") / n
    return float(max(np.abs(own_up_to - up_to).max(), np.abs(own_below - below).max()))


def levels_at(values: Floats, quantiles: Floats) -> tuple[Floats, Floats]:
    """Share of the reference below each value, and up to and including it. They differ where quantiles coincide."""
    levels = np.linspace(0, 1, len(quantiles))
    first = np.searchsorted(quantiles, values, side="left")
    last = np.searchsorted(quantiles, values, side="right") - 1
    between = np.interp(values, quantiles, levels)
    on_one = last >= first
    return np.where(on_one, levels[first.clip(max=len(levels) - 1)], between), np.where(on_one, levels[last], between)


def mean_shift(embeddings: Floats, reference: EmbeddingReference) -> float:
    """How far the mean embedding moved, in standard deviations of the reference along its main axes (Mahalanobis).

    Hotelling's T² is this squared, times the size of the window.
    """
    moved = embeddings.mean(axis=0, dtype=np.float64) - np.array(reference.mean)
    return float(np.linalg.norm(np.array(reference.axes) @ moved))
