"""Quantile functions compared with SciPy over more than the range that drift detection uses."""

from __future__ import annotations

import pytest
from scipy import special

from monitor.quantiles import chi_squared_quantile, f_quantile, kolmogorov_quantile

LEVELS = [1e-9, 1e-6, 0.0005, 0.01, 0.05, 0.3, 0.5, 0.9, 0.9999]


@pytest.mark.parametrize("level", LEVELS)
def test_kolmogorov(level: float) -> None:
    assert kolmogorov_quantile(level) == pytest.approx(special.kolmogi(level), rel=1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("freedom", [2, 6, 20])
def test_chi_squared(level: float, freedom: int) -> None:
    assert chi_squared_quantile(level, freedom) == pytest.approx(special.chdtri(freedom, level), rel=1e-9)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("above", [1, 2, 8, 64, 512])
@pytest.mark.parametrize("below", [1, 3, 50, 936, 100_000])
def test_fisher(level: float, above: int, below: int) -> None:
    assert f_quantile(level, above, below) == pytest.approx(_exceeded(level, above, below), rel=1e-8)


def _exceeded(level: float, above: int, below: int) -> float:
    """Return SciPy's tail probability, from the tail with better floating-point precision."""
    if level > 0.5:
        return special.fdtri(above, below, 1 - level)
    share = special.betaincinv(below / 2, above / 2, level)
    return below * (1 - share) / (above * share)
