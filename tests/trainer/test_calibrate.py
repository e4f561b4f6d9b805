from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluation.temperature import (
    MIN_RELIABLE_PHOTOS,
    PriorShift,
    best_temperature,
    calibration_note,
    log_loss,
    softmax,
)


def test_softmax_of_large_logits() -> None:
    assert softmax(np.array([[1000.0, 1000.0]])).tolist() == [[0.5, 0.5]]


def test_best_temperature_recovers_a_known_temperature() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 7)) * 2
    labels = np.array([random.choice(7, p=row) for row in softmax(logits)])
    assert best_temperature(logits, labels) == pytest.approx(1, abs=0.03)
    assert best_temperature(3 * logits, labels) == pytest.approx(3, abs=0.09)


def test_log_loss_by_hand() -> None:
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert log_loss(logits, np.array([0, 1])) == pytest.approx(-(np.log(0.25) + np.log(0.5)) / 2)


@pytest.mark.parametrize("right", [True, False])
def test_three_photos_barely_change_the_temperature(right: bool) -> None:
    """Without a prior, the optimum is at the end of the interval: 0.05 if all are right, 20 if all are wrong."""
    logits = np.tile([4.0, 0, 0, 0, 0, 0, 0], (3, 1))
    result = best_temperature(logits, np.full(3, 0 if right else 1))
    assert (0.9 < result < 1) if right else (1 < result < 2.5)
    repeated = best_temperature(np.repeat(logits, 1000, axis=0), np.full(3000, 0 if right else 1))
    assert (repeated < 0.5) if right else (repeated > 15)


def test_temperature_is_one_without_photos() -> None:
    assert best_temperature(np.empty((0, 7)), np.empty(0, np.int64)) == pytest.approx(1, abs=1e-4)


def test_many_photos_outweigh_the_prior() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(1000, 7)) * 2
    labels = np.array([random.choice(7, p=row) for row in softmax(logits)])
    result = best_temperature(3 * logits, labels)
    step = 0.01 * result
    assert log_loss(3 * logits, labels, result) < log_loss(3 * logits, labels, result + 5 * step)
    assert log_loss(3 * logits, labels, result) < log_loss(3 * logits, labels, result - 5 * step)


def test_few_photos_add_a_note() -> None:
    (note,) = calibration_note(0.934, 3)
    assert note.startswith("The temperature 0.93 was fitted to 3 validation photos, and held near 1")
    assert calibration_note(0.934, MIN_RELIABLE_PHOTOS) == []


SHIFT = PriorShift((0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), (10, 30, 10, 10, 10, 10, 0))
"""Class shares and the 80 training photos by class: empty bins are rarer in training, the last class is unknown."""


def test_prior_shift_multiplies_probabilities_by_the_ratio_of_shares() -> None:
    moved = softmax(np.log(np.array([[0.2, 0.3, 0.1, 0.1, 0.1, 0.2]])), shift=SHIFT.logits()[:6])[0]
    expected = np.array([0.2 * 0.4 / (10 / 80), 0.3 * 0.1 / (30 / 80), *[0.1 * 0.1 * 8] * 3, 0.2 * 0.1 * 8])
    assert moved == pytest.approx(expected / expected.sum())
    assert SHIFT.logits()[6] == 0


def test_prior_shift_weights_photos_by_class_share() -> None:
    labels = np.array([0, 1, 1, 1, 2])
    weights = SHIFT.weights(labels)
    assert weights.mean() == pytest.approx(1)
    assert weights[0] / weights[4] == pytest.approx(4)
    assert weights[1:4].sum() == pytest.approx(weights[4])


def test_temperature_with_prior_shift() -> None:
    """Predictions for empty bins are overconfident, all others calibrated, so the share of empty bins matters."""
    random = np.random.default_rng(2)
    logits = random.normal(size=(6000, 7)) * 2
    labels = np.array([random.choice(7, p=row) for row in softmax(logits)])
    shift = PriorShift((0.94, *[0.01] * 6), tuple(np.bincount(labels, minlength=7).tolist()))
    sure = np.where((labels == 0)[:, None], 4 * logits, logits)
    assert best_temperature(sure, labels, shift) > 1.3 * best_temperature(sure, labels)
    assert log_loss(sure, labels, shift=shift) > log_loss(sure, labels, best_temperature(sure, labels, shift), shift)
