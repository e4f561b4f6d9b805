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
"""Simulated pairs of samples."""
SIMULATED = 1e-3
"""Smallest level that they tell well: that leaves 50 beyond the threshold."""
KEPT = 0.1
"""Part of them that is kept: the largest."""
_BATCH = 10_000


def of_categories(reference: tuple[int, ...], reference_photos: int, photos: int, level: float) -> float:
    """Jensen–Shannon divergence that undrifted windows exceed with probability `level`, at most KEPT.

    Simulated down to SIMULATED. From there on it grows as the chi-squared variable does that it is asymptotically.
    Simulated for a size a little below `photos`, which is the more cautious, so that few sizes have to be.
    """
    simulated = _undrifted(reference, reference_photos, coarse(photos))
    threshold = float(simulated[-max(int(DRAWS * max(level, SIMULATED)), 1)])
    if level >= SIMULATED:
        return threshold
    freedom = len(reference) - 1
    return threshold * quantiles.chi_squared(level, freedom) / quantiles.chi_squared(SIMULATED, freedom)


def coarse(photos: int) -> int:
    """`photos`, rounded down to two digits, which are a multiple of 5 beyond 50."""
    step = 5 * 10 ** (len(str(photos)) - 2) if photos >= 50 else 1
    return photos - photos % step


@lru_cache(maxsize=256)
def _undrifted(reference: tuple[int, ...], reference_photos: int, photos: int) -> npt.NDArray[np.floating]:
    """The largest divergences of DRAWS undrifted windows, in ascending order.

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
    return np.sort(np.concatenate(found))[-int(DRAWS * KEPT) :].copy()


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
