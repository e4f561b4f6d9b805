from __future__ import annotations

import numpy as np
import pytest

from binwatch.counts import CountRule
from trainer.evaluation.metrics import (
    RESAMPLES,
    Counts,
    Floats,
    Ints,
    challenge_counts,
    confusion,
    counts_of,
    measure,
)
from trainer.evaluation.tables import recall_and_precision

LABELS = np.array([0, 1, 2, 3, 6, 6])
PREDICTED = np.array([0, 2, 2, 1, 6, 3])
"""Errors 0, +1, 0, -2, 0, -3."""


def counts(confidence: float = 0.5, groups: str = "aabbcd") -> Counts:
    return plain(PREDICTED, np.full(6, confidence), LABELS, list(groups))


def plain(predicted: Ints, confidence: Floats, labels: Ints, groups: list[str]) -> Counts:
    """Return counts whose mean and median are the predicted class."""
    return Counts(predicted, confidence, predicted.astype(float), predicted, labels, groups)


def test_metrics_by_hand() -> None:
    result = measure(counts(), majority=6)
    assert result.photos == 6
    assert result.accuracy.value == pytest.approx(3 / 6)
    assert result.within_one.value == pytest.approx(4 / 6)
    assert result.mae.value == pytest.approx((1 + 2 + 3) / 6)
    assert result.rmse.value == pytest.approx(((1 + 4 + 9) / 6) ** 0.5)
    assert result.majority_accuracy == pytest.approx(2 / 6)
    assert result.ece.value == pytest.approx(0)  # half are right, confidence is one half


def test_confusion_has_labels_as_rows() -> None:
    table = confusion(counts())
    assert table.sum() == 6
    assert [table[0, 0], table[1, 2], table[2, 2], table[3, 1], table[6, 6], table[6, 3]] == [1] * 6


def test_per_class() -> None:
    result = measure(counts(), majority=6).per_class
    assert result["2"] == {"photos": 1, "recall": 1.0, "precision": 0.5}
    assert result["more than 5"] == {"photos": 2, "recall": 0.5, "precision": 1.0}
    assert result["4"] == {"photos": 0, "recall": 0.0, "precision": 0.0}


def test_undefined_precision_and_recall_are_dashes() -> None:
    result = measure(counts(), majority=6)
    rates = {label: recall_and_precision(result, label) for label in ("0", "2", "3", "4", "5", "more than 5")}
    assert rates == {
        "0": ("100%", "100%"), "2": ("100%", "50%"), "3": ("0%", "0%"), "4": ("–", "–"), "5": ("–", "–"),
        "more than 5": ("50%", "100%"),
    }  # fmt: skip


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, False, True, True])
    # Two confidence bins with half of the photos each: confidence 0.95, accuracy 0.5; confidence 0.55, accuracy 1.0.
    result = plain(correct.astype(int), confidence, np.ones(4, int), list("abcd"))
    assert measure(result, 1).ece.value == pytest.approx(0.5 * 0.45 + 0.5 * 0.45)


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    certain = plain(np.ones(1, int), np.array([1.0]), np.ones(1, int), ["a"])
    assert measure(certain, 1).ece.value == 0.0


def test_intervals_resample_whole_groups() -> None:
    """A thousand photos of one bin give no more information on other bins than one photo."""
    random = np.random.default_rng(0)
    labels = np.zeros(1000, int)
    predicted = (random.random(1000) < 0.4).astype(int)
    confidence = np.full(1000, 0.6)
    interval = measure(plain(predicted, confidence, labels, ["a"] * 1000), 0).accuracy
    assert (interval.low, interval.value, interval.high) == (interval.value,) * 3
    each = measure(plain(predicted, confidence, labels, [str(n) for n in range(1000)]), 0).accuracy
    half = 1.96 * (each.value * (1 - each.value) / 1000) ** 0.5
    assert each.high - each.value == pytest.approx(half, rel=0.15)
    assert each.value - each.low == pytest.approx(half, rel=0.15)
    pairs = measure(plain(np.repeat(predicted, 2), np.full(2000, 0.6), np.zeros(2000, int), _twice(1000)), 0).accuracy
    assert pairs.high - pairs.low == pytest.approx(each.high - each.low, rel=0.05)


def _twice(groups: int) -> list[str]:
    return [str(number) for number in range(groups) for _ in range(2)]


def test_counts_take_the_most_probable_class() -> None:
    probabilities = np.array([[0.1, 0.2, 0.7, 0, 0, 0, 0], [0, 0, 0.1, 0, 0, 0, 0.9]], np.float32)
    result = counts_of(probabilities, np.array([2, 6]), ["a", "b"])
    assert result.predicted.tolist() == [2, 6]
    assert result.confidence == pytest.approx([0.7, 0.9])


def test_counts_take_the_median_with_the_median_rule() -> None:
    probabilities = np.array([[0.4, 0, 0.1, 0.1, 0, 0, 0.4], [0, 0.6, 0.4, 0, 0, 0, 0]], np.float32)
    result = counts_of(probabilities, np.array([2, 6]), ["a", "b"], CountRule.MEDIAN)
    assert result.predicted.tolist() == [2, 1]
    assert result.confidence == pytest.approx([0.1, 0.6])


def test_mean_and_median_have_their_own_metrics() -> None:
    """The mode is right for one of two photos; the mean is between classes and the median in the middle."""
    probabilities = np.array([[0.4, 0, 0, 0.3, 0.3, 0, 0], [0, 0.6, 0.4, 0, 0, 0, 0]], np.float32)
    result = counts_of(probabilities, np.array([3, 1]), ["a", "b"])
    assert result.predicted.tolist() == [0, 1]
    assert result.median.tolist() == [3, 1]
    assert result.mean == pytest.approx([0.9 + 1.2, 0.6 + 0.8])
    figures = measure(result, majority=0)
    assert figures.rmse.value == pytest.approx((9 / 2) ** 0.5)
    assert figures.rmse_of_mean is not None
    assert figures.mae_of_median is not None
    assert figures.rmse_of_mean.value == pytest.approx(((0.9**2 + 0.4**2) / 2) ** 0.5)
    assert figures.mae_of_median.value == 0


def test_the_median_of_a_certain_prediction_in_single_precision() -> None:
    probabilities = np.full((1, 7), 1e-9, np.float32)
    probabilities[0, 2] = 0.49999997
    probabilities[0, 5] = 0.5
    assert counts_of(probabilities, np.array([2]), ["a"]).median.tolist() == [2]


def test_challenge_mean_and_median_use_only_allowed_classes() -> None:
    probabilities = np.array([[0.5, 0.1, 0, 0.1, 0, 0, 0.3]], np.float32)
    result = challenge_counts(probabilities, np.array([3]), ["a"], low=1)
    assert result.mean == pytest.approx([2.0])
    assert result.median.tolist() == [1]


def test_challenge_counts_are_at_most_five() -> None:
    probabilities = np.array(
        [[0.1, 0, 0, 0.3, 0, 0.2, 0.4], [0.5, 0.1, 0, 0, 0, 0, 0.4], [0, 0, 0, 0, 0, 0, 1]], np.float32
    )
    labels = np.array([3, 0, 6])
    result = challenge_counts(probabilities, labels, ["a", "b", "c"])
    assert result.predicted.tolist() == [3, 0]
    assert result.labels.tolist() == [3, 0]
    assert result.groups == ["a", "b"]
    assert result.confidence == pytest.approx([0.3 / 0.6, 0.5 / 0.6])


def test_challenge_from_one_to_five() -> None:
    probabilities = np.array([[0.6, 0, 0.1, 0.3, 0, 0, 0], [0.5, 0.1, 0, 0, 0, 0, 0.4]], np.float32)
    result = challenge_counts(probabilities, np.array([3, 0]), ["a", "b"], low=1)
    assert result.predicted.tolist() == [3]
    assert result.confidence == pytest.approx([0.75])


def test_certainty_of_more_than_five_counts_as_five_in_the_challenge() -> None:
    """In half precision the other classes may have a probability of exactly 0."""
    result = challenge_counts(np.array([[0, 0, 0, 0, 0, 0, 1]], np.float32), np.array([4]), ["a"])
    assert (result.predicted.tolist(), result.confidence.tolist()) == ([5], [1.0])


def test_intervals_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    few = measure(counts(), majority=6)
    monkeypatch.setattr("trainer.evaluation.metrics.RESAMPLES_PER_CHUNK", RESAMPLES)
    assert measure(counts(), majority=6) == few
