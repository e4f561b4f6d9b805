from __future__ import annotations

import numpy as np
import pytest

from trainer.calibrate import best_temperature, log_loss, softmax


def test_softmax_of_large_logits() -> None:
    assert softmax(np.array([[1000.0, 1000.0]])).tolist() == [[0.5, 0.5]]


def test_temperature_that_was_put_in_is_found() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 7)) * 2
    labels = np.array([random.choice(7, p=row) for row in softmax(logits)])
    assert best_temperature(logits, labels) == pytest.approx(1, abs=0.03)
    assert best_temperature(3 * logits, labels) == pytest.approx(3, abs=0.09)


def test_log_loss_by_hand() -> None:
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert log_loss(logits, np.array([0, 1])) == pytest.approx(-(np.log(0.25) + np.log(0.5)) / 2)
