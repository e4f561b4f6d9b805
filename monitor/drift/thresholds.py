"""Thresholds: how far a window without drift may be from the reference by chance alone, given its size.

A fixed threshold is right for one window size only: it raises false alarms on smaller windows and misses real drift in
larger ones. Window and reference are both samples, so both sizes count. A size is a number of photos of different bins.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from monitor import quantiles
from monitor.drift.distances import jensen_shannon

SIMULATIONS = 50_000
"""Number of simulated pairs of samples."""
MIN_SIMULATED_LEVEL = 1e-3
"""Smallest level for which the simulation is precise enough: 50 simulated pairs exceed its threshold."""
MAX_LEVEL = 0.1
"""Largest level that thresholds can be computed for. Only this share of the simulated divergences is kept."""
_CHUNK_SIZE = 10_000


def jensen_shannon_threshold(reference_counts: tuple[int, ...], reference_size: int, size: int, level: float) -> float:
    """Jensen–Shannon divergence that windows without drift exceed with probability `level`, at most MAX_LEVEL.

    It is simulated down to MIN_SIMULATED_LEVEL and extrapolated below with the chi-squared distribution that it
    follows asymptotically. `size` is rounded down, which is cautious, so that few sizes have to be simulated.
    """
    divergences = _simulate_divergences(reference_counts, reference_size, round_down(size))
    threshold = float(divergences[-max(int(SIMULATIONS * max(level, MIN_SIMULATED_LEVEL)), 1)])
    if level >= MIN_SIMULATED_LEVEL:
        return threshold
    degrees = len(reference_counts) - 1
    return (
        threshold
        * quantiles.chi_squared_quantile(level, degrees)
        / quantiles.chi_squared_quantile(MIN_SIMULATED_LEVEL, degrees)
    )


def round_down(size: int) -> int:
    """Round a sample size of 50 or more down to two significant digits, the second of which is then 0 or 5."""
    step = 5 * 10 ** (len(str(size)) - 2) if size >= 50 else 1
    return size - size % step


@lru_cache(maxsize=256)
def _simulate_divergences(
    reference_counts: tuple[int, ...], reference_size: int, size: int
) -> npt.NDArray[np.floating]:
    """Return the largest divergences of SIMULATIONS windows without drift, in ascending order.

    Both samples are drawn from the reference's shares, with half a photo added to each category: if no reference photo
    shows an empty bin, empty bins may exist nevertheless.
    """
    random = np.random.default_rng(0)
    counts = np.array(reference_counts) + 0.5
    shares = counts / counts.sum()
    divergences = [
        jensen_shannon(
            random.multinomial(size, shares, _CHUNK_SIZE), random.multinomial(reference_size, shares, _CHUNK_SIZE)
        )
        for _ in range(SIMULATIONS // _CHUNK_SIZE)
    ]
    return np.sort(np.concatenate(divergences))[-int(SIMULATIONS * MAX_LEVEL) :].copy()


def kolmogorov_smirnov_threshold(reference_size: int, size: int, level: float) -> float:
    """Kolmogorov–Smirnov distance that windows without drift exceed with probability `level`.

    Closed form for any distribution, with Stephens' correction for small samples (1970, JRSS B 32, 115).
    """
    root = np.sqrt(_effective_size(reference_size, size))
    return float(quantiles.kolmogorov_quantile(level) / (root + 0.12 + 0.11 / root))


def mean_shift_threshold(reference_size: int, size: int, axes: int, level: float) -> float:
    """Mean shift that windows without drift exceed with probability `level`: Hotelling's T² follows an F distribution.

    Closed form; the spread is estimated from the reference alone. Means of 50 or more embeddings are close enough to
    normal for it (benchmarks/drift.py measures its false alarms).
    """
    degrees = reference_size - axes
    t_squared = axes * (reference_size - 1) / degrees * quantiles.f_quantile(level, axes, degrees)
    return float(np.sqrt(t_squared / _effective_size(reference_size, size)))


def _effective_size(reference_size: int, size: int) -> float:
    """Size of a single sample whose error is as large as the difference between the two samples."""
    return reference_size * size / (reference_size + size)
