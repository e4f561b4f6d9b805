"""Estimates from audits of random bins, compared with published formulas and reference implementations.

benchmarks/audits.py measures how often their intervals cover the truth; two cases are tested here.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monitor.estimates import Predictions, clopper_pearson, estimate

ANSWERS = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 1, 1] * 2)
PREDICTED = np.array([9, 5, 6, 4, 5, 7, 9, 2, 3, 8, 6, 3, 7, 9, 5, 7, 8, 1, 6, 7] * 2) / 10
LIKELIHOODS = np.array([0.25, 0.5, 0.75, 1] * 10)
MEAN_PREDICTION = float(PREDICTED.mean()) - 0.05
"""Mean prediction of all bins."""
PPI_SHARE, PPI_LOW, PPI_HIGH = 0.55791578, 0.41830159, 0.69752997
"""Results of ppi-python 0.2.3: `ppi_mean_pointestimate` and `ppi_mean_ci(alpha=0.05)`; 2,000,000 unaudited bins."""


@pytest.mark.parametrize(("yes", "audits"), [(3, 20), (81, 263), (2.5, 17.3), (0.001, 30), (999, 1_000), (5e5, 1e6)])
def test_clopper_pearson_matches_scipy(yes: float, audits: float) -> None:
    interval = clopper_pearson(yes, audits)
    assert interval.low == pytest.approx(stats.beta.ppf(0.025, yes, audits - yes + 1), rel=1e-6, abs=1e-12)
    assert interval.high == pytest.approx(stats.beta.ppf(0.975, yes + 1, audits - yes), rel=1e-6)


def test_equal_draw_probabilities_give_the_exact_interval() -> None:
    result = estimate(ANSWERS, np.full(40, 0.3))
    assert (result.share, result.audits) == (pytest.approx(0.6), 40)
    assert result.equivalent == pytest.approx(40)
    assert result.interval.low == pytest.approx(0.4332671, abs=1e-7)  # scipy.stats.binomtest(24, 40).proportion_ci()
    assert result.interval.high == pytest.approx(0.7513500, abs=1e-7)


def test_weighted_estimate_matches_hajek() -> None:
    """Share, and variance by linearisation, with the formulas of Särndal, Swensson and Wretman (1992), 5.7 and 5.8."""
    result, weights = estimate(ANSWERS, LIKELIHOODS), 1 / LIKELIHOODS
    share = (weights * ANSWERS).sum() / weights.sum()
    variance = (weights**2 * (ANSWERS - share) ** 2).sum() / weights.sum() ** 2
    assert result.share == pytest.approx(share)
    assert result.equivalent == pytest.approx(share * (1 - share) / variance)
    expected = clopper_pearson(result.share * result.equivalent, result.equivalent)
    assert (result.interval.low, result.interval.high) == pytest.approx((expected.low, expected.high))


def test_prediction_powered_estimate_matches_ppi_python() -> None:
    result = estimate(ANSWERS, np.ones(40), Predictions(PREDICTED, MEAN_PREDICTION))
    assert result.share == pytest.approx(PPI_SHARE, abs=1e-5)
    # Unlike ours, their variance ignores that the weight of predictions is fitted to the audits.
    error = (PPI_HIGH - PPI_LOW) / 2 / stats.norm.ppf(0.975) * np.sqrt(39 / 38)
    assert result.equivalent == pytest.approx(result.share * (1 - result.share) / error**2, rel=1e-4)


def test_prediction_powered_estimate_with_weights_matches_ppi_python() -> None:
    """The share is that of ppi-python 0.2.3 with `w` and our weight of predictions as `lam`, not its default."""
    result = estimate(ANSWERS, LIKELIHOODS, Predictions(PREDICTED, MEAN_PREDICTION))
    assert result.share == pytest.approx(0.61837983, abs=1e-8)
    without_predictions = estimate(ANSWERS, LIKELIHOODS)
    assert result.equivalent > without_predictions.equivalent
    sampled = estimate(ANSWERS, LIKELIHOODS, Predictions(PREDICTED, MEAN_PREDICTION, error=0.05))
    assert sampled.share == result.share
    assert sampled.equivalent < result.equivalent


def test_uninformative_predictions_change_nothing() -> None:
    without_predictions = estimate(ANSWERS, LIKELIHOODS)
    assert estimate(ANSWERS, LIKELIHOODS, Predictions(np.full(40, 0.7), 0.7)).share == pytest.approx(
        without_predictions.share
    )
    backwards = estimate(ANSWERS, LIKELIHOODS, Predictions(1 - PREDICTED, 0.2))
    assert backwards.share == pytest.approx(without_predictions.share)


@pytest.mark.parametrize("yes", [0, 1])
def test_interval_of_identical_answers(yes: int) -> None:
    result = estimate(np.full(50, yes), np.ones(50), Predictions(np.linspace(0, 1, 50), 0.4))
    assert (result.share, result.equivalent) == (yes, pytest.approx(50))
    width = 1 - 0.025 ** (1 / 50)
    assert result.interval.high - result.interval.low == pytest.approx(width)


def test_a_draw_probability_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        estimate(ANSWERS, np.zeros(40))


def test_intervals_cover_extreme_shares_where_t_intervals_do_not() -> None:
    """300 samples of 50 bins, of which 98 % are right; intervals of ± t standard errors cover only two thirds."""
    random = np.random.default_rng(0)
    samples = random.random((300, 50)) < 0.98
    covering = [
        item.interval.low <= 0.98 <= item.interval.high for item in (estimate(each, np.ones(50)) for each in samples)
    ]
    assert sum(covering) >= 285


@pytest.mark.parametrize("likelihoods", [np.ones(40), np.linspace(0.5, 1, 40)])
def test_intervals_cover_the_truth_under_repeated_draws(likelihoods: np.ndarray) -> None:
    """Draw from 40 bins until 30 different ones were drawn; the answer of a bin counts at each of its draws."""
    random, covering, repeats = np.random.default_rng(1), 0, 0
    right = random.permutation(40) < 30
    for _ in range(400):
        drawn: list[int] = []
        while len(set(drawn)) < 30:
            drawn.append(random.choice(40, p=likelihoods / likelihoods.sum()))
        result = estimate(right[drawn], likelihoods[drawn])
        covering += result.interval.low <= right.mean() <= result.interval.high
        repeats += len(drawn) - 30
    assert repeats / 400 > 20
    assert covering >= 380
