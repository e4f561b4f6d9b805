"""Figures of a confusion matrix, compared with figures computed directly from the pairs."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binwatch.confusion import ConfusionMatrix
from binwatch.counts import Outcome, outcome_of

PAIRS = [(3, 3), (3, 4), (3, 1), (6, 6), (0, 6)]
classes = st.integers(0, 6)


def test_known_figures() -> None:
    matrix = ConfusionMatrix.from_pairs(PAIRS)
    assert (matrix.comparisons, matrix.comparisons_within_one) == (5, 3)
    assert (matrix.absolute_error, matrix.squared_error) == (9, 41)
    assert (matrix.agreement, matrix.within_one, matrix.mae) == (0.4, 0.6, 1.8)
    assert matrix.rmse == pytest.approx(math.sqrt(8.2))
    assert matrix.rows[3] == [0, 1, 0, 1, 1, 0, 0]
    assert matrix.rows[0] == [0, 0, 0, 0, 0, 0, 1]


def test_filtering_a_matrix() -> None:
    matrix = ConfusionMatrix.from_pairs(PAIRS)
    assert matrix.where(true_class=3).cells == {(3, 3): 1, (3, 4): 1, (3, 1): 1}
    assert matrix.where(outcome=Outcome.OVER).cells == {(3, 4): 1, (0, 6): 1}
    assert matrix.where(true_class=0, outcome=Outcome.EXACT).cells == {}
    assert matrix.where() == matrix


def test_an_empty_matrix_has_no_figures() -> None:
    nothing = ConfusionMatrix()
    assert (nothing.comparisons, nothing.absolute_error) == (0, 0)
    assert (nothing.agreement, nothing.within_one, nothing.mae, nothing.rmse) == (None, None, None, None)
    assert nothing.rows == [[0] * 7] * 7


@given(st.lists(st.tuples(classes, classes), min_size=1))
def test_figures_match_the_pairs(pairs: list[tuple[int, int]]) -> None:
    matrix, errors = ConfusionMatrix.from_pairs(pairs), [predicted - true for true, predicted in pairs]
    assert matrix.comparisons == len(pairs)
    assert matrix.agreement == pytest.approx(errors.count(0) / len(errors))
    assert matrix.within_one == pytest.approx(sum(abs(error) <= 1 for error in errors) / len(errors))
    assert matrix.mae == pytest.approx(sum(map(abs, errors)) / len(errors))
    assert matrix.rmse == pytest.approx(math.sqrt(sum(error**2 for error in errors) / len(errors)))
    assert {outcome: matrix.where(outcome=outcome).comparisons for outcome in Outcome} == dict.fromkeys(
        Outcome, 0
    ) | Counter(outcome_of(predicted, true) for true, predicted in pairs)
    assert sum(map(sum, matrix.rows)) == len(pairs)
