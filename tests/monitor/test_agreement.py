"""Agreement of auditors and their estimated accuracies, compared with manual results and other programs.

benchmarks/auditors.py measures how often auditors are ranked correctly and how often intervals cover the truth.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from monitor.agreement import Photo, Source, accuracies, agreements


def test_agreement_with_other_auditors_and_known_quantities() -> None:
    photos: list[Photo] = [
        {"Ada": 4, "Ben": 4, Source.INVENTORY: 4},
        {"Ben": 3, "Ada": 4},
        {"Ada": 9, "Cleo": 4},
        {"Ada": 5, Source.KNOWN: 5},
        {"Ada": 5, Source.KNOWN: 7},
    ]
    by_auditor = {item.auditor: item for item in agreements(photos)}
    assert by_auditor.keys() == {"Ada", "Ben", "Cleo"}
    ada, cleo = by_auditor["Ada"], by_auditor["Cleo"]
    assert ada.others is not None
    assert ada.known is not None
    assert (ada.others.exact.audits, ada.others.exact.share) == (3, pytest.approx(1 / 3))
    assert ada.others.within_one.share == pytest.approx(2 / 3)
    exact = stats.binomtest(1, 3).proportion_ci()
    assert (ada.others.exact.interval.low, ada.others.exact.interval.high) == pytest.approx((exact.low, exact.high))
    assert (ada.known.exact.audits, ada.known.exact.share, ada.known.within_one.share) == (2, 0.5, 0.5)
    assert (cleo.known, ada.accuracy.audits, cleo.accuracy.audits) == (None, 5, 1)


def test_no_answers_to_compare() -> None:
    assert agreements([]) == []


def test_accuracy_from_known_quantities_alone_is_the_share_of_right_answers() -> None:
    """Except for the prior: two answers, 1.6 of them right."""
    photos: list[Photo] = [{"Ada": 4 + (number < 10), Source.KNOWN: 4} for number in range(100)]
    (ada,) = agreements(photos)
    assert (ada.accuracy.share, ada.accuracy.audits) == (pytest.approx(91.6 / 102), 100)
    assert ada.accuracy.equivalent == pytest.approx(102)


def _simulated(pairs: int = 400) -> list[Photo]:
    """Simulate answers of pairs of auditors, right in 75, 85 and 95 % of cases, and of an inventory, right in 90 %."""
    random = np.random.default_rng(5)

    def answer(accuracy: float) -> int:
        return 5 if random.random() < accuracy else 5 + int(random.choice([-1, 1]))

    right = {"low": 0.75, "middle": 0.85, "high": 0.95}
    photos: list[Photo] = []
    for _ in range(pairs):
        first, second = random.permutation(list(right))[:2].tolist()
        photos.append({first: answer(right[first]), second: answer(right[second]), Source.INVENTORY: answer(0.9)})
    return photos


def test_estimates_maximise_the_likelihood_of_dawid_and_skene() -> None:
    """The estimates match those of a general optimiser on an independent implementation of the likelihood."""
    photos = _simulated(100)
    estimated = accuracies(photos)
    sources = list(estimated)

    def negative(shares: np.ndarray) -> float:
        right = dict(zip(sources, shares, strict=True))
        total = float((1.6 * np.log(shares) + 0.4 * np.log(1 - shares)).sum())
        for photo in photos:
            likely = 0.0
            for truth in range(3, 8):
                if any(abs(truth - quantity) <= 1 for quantity in photo.values()):
                    terms = [
                        right[source] if quantity == truth
                        else (1 - right[source]) * 0.45 * 0.1 ** (abs(quantity - truth) - 1)
                        for source, quantity in photo.items()
                    ]  # fmt: skip
                    likely += float(np.prod(terms))
            total += np.log(likely)
        return -total

    best = optimize.minimize(negative, np.full(len(sources), 0.8), bounds=[(0.01, 0.99)] * len(sources), tol=1e-10)
    assert [estimated[source].share for source in sources] == pytest.approx(best.x.tolist(), abs=2e-3)
    # The variance follows from the curvature of the likelihood.
    step, size = 1e-3, len(sources)
    shares = np.array([estimated[source].share for source in sources])
    curvature = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            signs = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
            for a, b, sign in signs:
                moved = shares.copy()
                moved[row] += a * step
                moved[column] += b * step
                curvature[row, column] += sign * negative(moved) / (4 * step**2)
    variances = np.diag(np.linalg.inv(curvature))
    equivalent = [estimated[source].equivalent for source in sources]
    assert equivalent == pytest.approx((shares * (1 - shares) / variances).tolist(), rel=0.02)


def test_auditors_are_ranked_by_their_accuracy() -> None:
    ranking = agreements(_simulated())
    assert [item.auditor for item in ranking] == ["high", "middle", "low"]
    for item, true in zip(ranking, (0.95, 0.85, 0.75), strict=True):
        assert item.accuracy.interval.low < true < item.accuracy.interval.high


def test_two_auditors_who_always_differ_have_equal_accuracies() -> None:
    photos: list[Photo] = [{"Ada": 4, "Ben": 5} for _ in range(50)]
    ada, ben = agreements(photos)
    assert ada.accuracy.share == pytest.approx(ben.accuracy.share)
    assert ada.accuracy.interval.high - ada.accuracy.interval.low > 0.5


def test_a_grossly_mistyped_number_counts_as_one_wrong_answer() -> None:
    near: list[Photo] = [{"Ada": 4, "Ben": 4, Source.INVENTORY: 4}] * 20
    far = accuracies([*near, {"Ada": 4, "Ben": 1_000_000, Source.INVENTORY: 4}])
    assert far["Ada"].share > 0.95
    assert far["Ben"].share == pytest.approx(21.6 / 23, abs=0.01)
