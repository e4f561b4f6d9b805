"""Counts beside quantities."""

from __future__ import annotations

import numpy as np
import pytest

from binwatch.counts import (
    CLASSES,
    MORE,
    Outcome,
    class_of,
    difference_in_words,
    difference_of,
    error_of,
    in_classes,
    outcome_of,
)


@pytest.mark.parametrize(("quantity", "index"), [(0, 0), (1, 1), (5, 5), (6, 6), (7, 6), (209, 6), (10**9, 6)])
def test_class_of(quantity: int, index: int) -> None:
    assert class_of(quantity) == index


def test_classes_are_a_view_of_a_distribution() -> None:
    both = np.array([[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1], [0, 0, 0, 0, 0, 0.25, 0.25, 0, 0.5]], np.float32)
    found = in_classes(both)
    assert found.dtype == np.float32
    assert found[0] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4])
    assert found[1].tolist() == [0, 0, 0, 0, 0, 0.25, 0.75]
    assert in_classes(both[1]).tolist() == found[1].tolist()
    assert in_classes(found) is found


def test_a_negative_quantity() -> None:
    with pytest.raises(ValueError, match="cannot be negative: -1"):
        class_of(-1)


@pytest.mark.parametrize(
    ("predicted", "quantity", "error", "outcome"),
    [
        (0, 0, 0, Outcome.EXACT),
        (3, 5, -2, Outcome.UNDER),
        (5, 3, 2, Outcome.OVER),
        (MORE, 6, 0, Outcome.EXACT),
        (MORE, 209, 0, Outcome.EXACT),
        (MORE, 5, 1, Outcome.OVER),
        (5, 6, -1, Outcome.UNDER),
        (0, 209, -6, Outcome.UNDER),
    ],
)
def test_error_and_outcome(predicted: int, quantity: int, error: int, outcome: Outcome) -> None:
    assert error_of(predicted, quantity) == error
    assert outcome_of(predicted, quantity) is outcome


@pytest.mark.parametrize(
    ("predicted", "quantity", "difference"),
    [(3, 7, -4), (5, 3, 2), (5, 5, 0), (MORE, 4, 2), (MORE, 5, 1), (MORE, 209, 0), (0, 209, -209)],
)
def test_the_difference_has_no_cap(predicted: int, quantity: int, difference: int) -> None:
    assert difference_of(predicted, quantity) == difference


@pytest.mark.parametrize(
    ("predicted", "quantity", "words"),
    [
        (3, 7, "4 fewer"),
        (5, 3, "2 more"),
        (2, 2, "agrees"),
        (MORE, 4, "at least 2 more"),
        (MORE, 209, "agrees"),
        (0, 5000, "5000 fewer"),
    ],
)
def test_the_difference_in_words(predicted: int, quantity: int, words: str) -> None:
    assert difference_in_words(predicted, quantity) == words


def test_classes() -> None:
    assert CLASSES[MORE] == "more than 5"
    assert len(CLASSES) == 7
