"""Quantiles of three distributions. SciPy has them, too, and would be half of the monitor's image for these alone."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, factorial, inf, lgamma, log, pi, sqrt

_TINY = 1e-300
_PRECISION = 1e-14
_TERMS = 10_000
_HALVINGS = 200


def kolmogorov(level: float) -> float:
    """Value that Kolmogorov's distribution (the limit of √n times the distance) exceeds with probability `level`."""

    def tail(x: float) -> float:
        """Both series are exact; below 1 the second converges within four terms, above 1 the first."""
        if x < 1:
            return 1 - sqrt(2 * pi) / x * sum(exp(-((2 * k - 1) ** 2) * pi**2 / (8 * x * x)) for k in range(1, 5))
        return 2 * sum((1 if k % 2 else -1) * exp(-2 * k * k * x * x) for k in range(1, 5))

    return _root(lambda x: level - tail(x))


def fisher(level: float, above: float, below: float) -> float:
    """Value that an F variable with so many degrees of freedom exceeds with probability `level`."""

    def excess(x: float) -> float:
        share = above * x + below
        return level - _incomplete_beta(below / 2, above / 2, below / share, above * x / share)

    return _root(excess)


def chi_squared(level: float, freedom: int) -> float:
    """Value that a chi-squared variable with an even number of degrees of freedom exceeds with probability `level`."""
    return _root(lambda x: level - exp(-x / 2) * sum((x / 2) ** k / factorial(k) for k in range(freedom // 2)))


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Regularised; `rest` is 1 - x. By the continued fraction, which converges fast below the distribution's mean."""
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, rest, x)
    if x <= 0:
        return 0.0
    factor = lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(rest)
    return exp(factor) / (a * _beta_fraction(a, b, x))


def _beta_fraction(a: float, b: float, x: float) -> float:
    """1 + d₁/(1 + d₂/(1 + …)) by Lentz' method, with the coefficients d of NIST's handbook, 8.17.22."""
    value = c = 1.0
    d = 0.0
    for term in range(1, _TERMS):
        m, odd = divmod(term, 2)
        if odd:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / ((1 + coefficient * d) or _TINY)
        c = (1 + coefficient / c) or _TINY
        value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value


def _root(rising: Callable[[float], float]) -> float:
    """Where a function that rises from below 0 at 0 crosses it, by halving."""
    low, high = 0.0, 1.0
    while rising(high) < 0 and high < inf:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
