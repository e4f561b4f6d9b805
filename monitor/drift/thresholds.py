"""How far a window that has not drifted may be from the reference by chance alone, at its size.

A fixed threshold is wrong at every size but one: it cries wolf on small windows and sleeps through real drift on large
ones. Both the window and the reference are samples, so the size of both counts: the number of photos of different bins.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from monitor import quantiles
from monitor.drift.distances import jensen_shannon

DRAWS = 50_000
"""Simulated pairs of samples. At a level of 1 in 2,000 that leaves 25 beyond the threshold."""
_BATCH = 10_000


def of_categories(reference: tuple[int, ...], reference_photos: int, photos: int, level: float) -> float:
    """Jensen–Shannon divergence that undrifted windows exceed with probability `level`; simulated."""
    return float(_undrifted(reference, reference_photos, photos)[int(DRAWS * (1 - level))])


@lru_cache(maxsize=64)
def _undrifted(reference: tuple[int, ...], reference_photos: int, photos: int) -> npt.NDArray[np.floating]:
    """Divergences of DRAWS undrifted windows, in ascending order.

    Both samples are drawn from the reference's shares, with half a photo added to each category: that no reference
    photo showed an empty bin does not mean that there are none.
    """
    random = np.random.default_rng(0)
    counts = np.array(reference) + 0.5
    shares = counts / counts.sum()
    found = [
        jensen_shannon(random.multinomial(photos, shares, _BATCH), random.multinomial(reference_photos, shares, _BATCH))
        for _ in range(DRAWS // _BATCH)
    ]
    return np.sort(np.concatenate(found))


def of_distribution(reference_photos: int, photos: int, level: float) -> float:
    """Kolmogorov–Smirnov distance that undrifted windows exceed with probability `level`.

    Closed form with Stephens' correction for small samples (1970, JRSS B 32, 115), whatever the distribution.
    """
    root = np.sqrt(_effective(reference_photos, photos))
    return float(quantiles.kolmogorov(level) / (root + 0.12 + 0.11 / root))


def of_mean_shift(reference_photos: int, photos: int, axes: int, level: float) -> float:
    """Mean shift that undrifted windows exceed with probability `level`: Hotelling's T² follows an F distribution.

    Closed form; the spread is estimated from the reference alone. Means of 50 and more embeddings are close enough
    to normal for it (benchmarks/drift.py measures how often it is wrong).
    """
    freedom = reference_photos - axes
    quantile = quantiles.fisher(level, axes, freedom)
    t_squared = axes * (reference_photos - 1) / freedom * quantile
    return float(np.sqrt(t_squared / _effective(reference_photos, photos)))


def _effective(reference_photos: int, photos: int) -> float:
    """Size of a sample that is as far off by chance as the two samples are from each other."""
    return reference_photos * photos / (reference_photos + photos)
