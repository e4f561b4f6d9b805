"""Estimates from audits of bins drawn at random, against published formulas and their authors' own code.

How often their intervals cover the truth is for benchmarks/audits.py to measure; here is one case of it.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monitor.estimates import Predictions, clopper_pearson, estimate

ANSWERS = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 1, 1] * 2)
PREDICTED = np.array([9, 5, 6, 4, 5, 7, 9, 2, 3, 8, 6, 3, 7, 9, 5, 7, 8, 1, 6, 7] * 2) / 10
DRAWN_AS = np.array([0.25, 0.5, 0.75, 1] * 10)
OF_ALL = float(PREDICTED.mean()) - 0.05
"""Mean prediction of all bins."""
PPI_SHARE, PPI_LOW, PPI_HIGH = 0.55791578, 0.41830159, 0.69752997
"""By ppi-python 0.2.3: `ppi_mean_pointestimate` and `ppi_mean_ci(alpha=0.05)`, of 2,000,000 bins beside the audits."""


@pytest.mark.parametrize(("yes", "audits"), [(3, 20), (81, 263), (2.5, 17.3), (0.001, 30), (999, 1_000), (5e5, 1e6)])
def test_clopper_pearson_matches_scipy(yes: float, audits: float) -> None:
    interval = clopper_pearson(yes, audits)
    assert interval.low == pytest.approx(stats.beta.ppf(0.025, yes, audits - yes + 1), rel=1e-6, abs=1e-12)
    assert interval.high == pytest.approx(stats.beta.ppf(0.975, yes + 1, audits - yes), rel=1e-6)


def test_equal_draw_probabilities_give_the_exact_interval() -> None:
    found = estimate(ANSWERS, np.full(40, 0.3))
    assert (found.share, found.audits) == (pytest.approx(0.6), 40)
    assert found.equivalent == pytest.approx(40)
    assert found.interval.low == pytest.approx(0.4332671, abs=1e-7)  # scipy.stats.binomtest(24, 40).proportion_ci()
    assert found.interval.high == pytest.approx(0.7513500, abs=1e-7)


def test_weighted_estimate_matches_hajek() -> None:
    """Share, and variance by linearisation, with the formulas of Särndal, Swensson and Wretman (1992), 5.7 and 5.8."""
    found, weights = estimate(ANSWERS, DRAWN_AS), 1 / DRAWN_AS
    share = (weights * ANSWERS).sum() / weights.sum()
    variance = (weights**2 * (ANSWERS - share) ** 2).sum() / weights.sum() ** 2
    assert found.share == pytest.approx(share)
    assert found.equivalent == pytest.approx(share * (1 - share) / variance)
    as_if = clopper_pearson(found.share * found.equivalent, found.equivalent)
    assert (found.interval.low, found.interval.high) == pytest.approx((as_if.low, as_if.high))


def test_prediction_powered_estimate_matches_ppi_python() -> None:
    found = estimate(ANSWERS, np.ones(40), Predictions(PREDICTED, OF_ALL))
    assert found.share == pytest.approx(PPI_SHARE, abs=1e-5)
    # Theirs takes no account of the weight of predictions being fitted to the audits, too.
    error = (PPI_HIGH - PPI_LOW) / 2 / stats.norm.ppf(0.975) * np.sqrt(39 / 38)
    assert found.equivalent == pytest.approx(found.share * (1 - found.share) / error**2, rel=1e-4)


def test_prediction_powered_estimate_with_weights_matches_ppi_python() -> None:
    """The share by ppi-python 0.2.3 with `w` and our own weight of predictions as `lam`: it chooses another."""
    found = estimate(ANSWERS, DRAWN_AS, Predictions(PREDICTED, OF_ALL))
    assert found.share == pytest.approx(0.61837983, abs=1e-8)
    alone = estimate(ANSWERS, DRAWN_AS)
    assert found.equivalent > alone.equivalent
    sampled = estimate(ANSWERS, DRAWN_AS, Predictions(PREDICTED, OF_ALL, error=0.05))
    assert sampled.share == found.share
    assert sampled.equivalent < found.equivalent


def test_uninformative_predictions_change_nothing() -> None:
    alone = estimate(ANSWERS, DRAWN_AS)
    assert estimate(ANSWERS, DRAWN_AS, Predictions(np.full(40, 0.7), 0.7)).share == pytest.approx(alone.share)
    backwards = estimate(ANSWERS, DRAWN_AS, Predictions(1 - PREDICTED, 0.2))
    assert backwards.share == pytest.approx(alone.share)


@pytest.mark.parametrize("yes", [0, 1])
def test_interval_of_identical_answers(yes: int) -> None:
    found = estimate(np.full(50, yes), np.ones(50), Predictions(np.linspace(0, 1, 50), 0.4))
    assert (found.share, found.equivalent) == (yes, pytest.approx(50))
    width = 1 - 0.025 ** (1 / 50)
    assert found.interval.high - found.interval.low == pytest.approx(width)


def test_a_draw_probability_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        estimate(ANSWERS, np.zeros(40))


def test_intervals_cover_extreme_shares_where_t_intervals_do_not() -> None:
    """300 samples of 50 bins of which 98 % are right: of those, ± t standard errors covers two thirds."""
    random = np.random.default_rng(0)
    samples = random.random((300, 50)) < 0.98
    held = [one.interval.low <= 0.98 <= one.interval.high for one in (estimate(each, np.ones(50)) for each in samples)]
    assert sum(held) >= 285


@pytest.mark.parametrize("likelihoods", [np.ones(40), np.linspace(0.5, 1, 40)])
def test_intervals_cover_the_truth_under_repeated_draws(likelihoods: np.ndarray) -> None:
    """Of 40 bins, until 30 different ones have been drawn: the answer of a bin is used at each of its draws."""
    random, held, again = np.random.default_rng(1), 0, 0
    right = random.permutation(40) < 30
    for _ in range(400):
        drawn: list[int] = []
        while len(set(drawn)) < 30:
            drawn.append(random.choice(40, p=likelihoods / likelihoods.sum()))
        found = estimate(right[drawn], likelihoods[drawn])
        held += found.interval.low <= right.mean() <= found.interval.high
        again += len(drawn) - 30
    assert again / 400 > 20
    assert held >= 380
