"""Quantiles of three distributions. SciPy has them too, but would make up half of the monitor's image."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, factorial, inf, lgamma, log, pi, sqrt

_TINY = 1e-300
_TOLERANCE = 1e-14
_MAX_TERMS = 10_000
_MAX_BISECTIONS = 200


def kolmogorov_quantile(level: float) -> float:
    """Return the value that the Kolmogorov distribution, the limit of √n times the distance, exceeds at this level."""

    def tail(x: float) -> float:
        """Upper tail. Both series are exact; below 1 one of them converges within four terms, above 1 the other."""
        if x < 1:
            return 1 - sqrt(2 * pi) / x * sum(exp(-((2 * k - 1) ** 2) * pi**2 / (8 * x * x)) for k in range(1, 5))
        return 2 * sum((1 if k % 2 else -1) * exp(-2 * k * k * x * x) for k in range(1, 5))

    return _root(lambda x: level - tail(x))


def f_quantile(level: float, d1: float, d2: float) -> float:
    """Return the value that the F distribution with d1 and d2 degrees of freedom exceeds with probability `level`."""

    def level_minus_tail(x: float) -> float:
        total = d1 * x + d2
        return level - _incomplete_beta(d2 / 2, d1 / 2, d2 / total, d1 * x / total)

    return _root(level_minus_tail)


def chi_squared_quantile(level: float, degrees: int) -> float:
    """Return the value that the chi-squared distribution exceeds with this probability. `degrees` must be even."""
    return _root(lambda x: level - exp(-x / 2) * sum((x / 2) ** k / factorial(k) for k in range(degrees // 2)))


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """Regularised incomplete beta function, with y = 1 - x.

    Computed by the continued fraction, which converges fast below the distribution's mean.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, y, x)
    if x <= 0:
        return 0.0
    factor = lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(y)
    return exp(factor) / (a * _beta_fraction(a, b, x))


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Evaluate 1 + d₁/(1 + d₂/(1 + …)) by Lentz's method, with the coefficients d of NIST's handbook, 8.17.22."""
    value = c = 1.0
    d = 0.0
    for term in range(1, _MAX_TERMS):
        m, is_odd = divmod(term, 2)
        if is_odd:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / ((1 + coefficient * d) or _TINY)
        c = (1 + coefficient / c) or _TINY
        value *= c * d
        if abs(c * d - 1) < _TOLERANCE:
            break
    return value


def _root(f: Callable[[float], float]) -> float:
    """Find by bisection the root of an increasing function that is negative at 0."""
    low, high = 0.0, 1.0
    while f(high) < 0 and high < inf:
        low, high = high, 2 * high
    for _ in range(_MAX_BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if f(middle) < 0 else (low, middle)
    return (low + high) / 2
