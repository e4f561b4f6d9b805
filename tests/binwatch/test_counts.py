"""Comparison of counts with quantities: classes, errors and differences."""

from __future__ import annotations

import numpy as np
import pytest

from binwatch.counts import (
    CLASSES,
    MORE_THAN_5,
    LargeCount,
    Outcome,
    class_error,
    class_of,
    class_probabilities,
    describe_count,
    describe_difference,
    estimate_large_count,
    item_difference,
    outcome_of,
)


@pytest.mark.parametrize(("quantity", "index"), [(0, 0), (1, 1), (5, 5), (6, 6), (7, 6), (209, 6), (10**9, 6)])
def test_class_of(quantity: int, index: int) -> None:
    assert class_of(quantity) == index


def test_class_probabilities_derive_from_the_distribution() -> None:
    both = np.array([[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1], [0, 0, 0, 0, 0, 0.25, 0.25, 0, 0.5]], np.float32)
    result = class_probabilities(both)
    assert result.dtype == np.float32
    assert result[0] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4])
    assert result[1].tolist() == [0, 0, 0, 0, 0, 0.25, 0.75]
    assert class_probabilities(both[1]).tolist() == result[1].tolist()
    assert class_probabilities(result) is result


def test_a_negative_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative: -1"):
        class_of(-1)


@pytest.mark.parametrize(
    ("predicted", "quantity", "error", "outcome"),
    [
        (0, 0, 0, Outcome.EXACT),
        (3, 5, -2, Outcome.UNDER),
        (5, 3, 2, Outcome.OVER),
        (MORE_THAN_5, 6, 0, Outcome.EXACT),
        (MORE_THAN_5, 209, 0, Outcome.EXACT),
        (MORE_THAN_5, 5, 1, Outcome.OVER),
        (5, 6, -1, Outcome.UNDER),
        (0, 209, -6, Outcome.UNDER),
    ],
)
def test_error_and_outcome(predicted: int, quantity: int, error: int, outcome: Outcome) -> None:
    assert class_error(predicted, quantity) == error
    assert outcome_of(predicted, quantity) is outcome


@pytest.mark.parametrize(
    ("predicted", "quantity", "difference"),
    [(3, 7, -4), (5, 3, 2), (5, 5, 0), (MORE_THAN_5, 4, 2), (MORE_THAN_5, 5, 1), (MORE_THAN_5, 209, 0), (0, 209, -209)],
)
def test_the_difference_is_not_capped(predicted: int, quantity: int, difference: int) -> None:
    assert item_difference(predicted, quantity) == difference


@pytest.mark.parametrize(
    ("predicted", "quantity", "words"),
    [
        (3, 7, "4 fewer"),
        (5, 3, "2 more"),
        (2, 2, "agrees"),
        (MORE_THAN_5, 4, "at least 2 more"),
        (MORE_THAN_5, 209, "agrees"),
        (0, 5000, "5000 fewer"),
    ],
)
def test_the_difference_in_words(predicted: int, quantity: int, words: str) -> None:
    assert describe_difference(predicted, quantity) == words


def test_classes() -> None:
    assert CLASSES[MORE_THAN_5] == "more than 5"
    assert len(CLASSES) == 7


def distribution_of(**chances: float) -> list[float]:
    """Return a distribution over 0 to 20 and more, with probabilities such as `at_17=0.5`; `more` is above 20."""
    result = [chances.get(f"at_{quantity}", 0.0) for quantity in range(21)]
    return [*result, chances.get("more", 0.0)]


def test_a_count_beyond_five_is_the_median_of_the_tail() -> None:
    distribution = distribution_of(at_4=0.2, at_6=0.12, at_12=0.12, at_17=0.32, at_18=0.16, more=0.08)
    assert estimate_large_count(MORE_THAN_5, distribution) == LargeCount(low=6, median=17, high=18, open=21)
    assert estimate_large_count(4, distribution) is None
    assert estimate_large_count(MORE_THAN_5, [0.1] * 7) is None
    assert estimate_large_count(MORE_THAN_5, None) is None
    assert estimate_large_count(MORE_THAN_5, distribution_of(more=1.0)) == LargeCount(21, 21, 21, 21)


@pytest.mark.parametrize(
    ("quantity", "difference", "words"),
    [
        (40, -23, "23 fewer"),
        (20, -3, "3 fewer"),
        (19, 0, "agrees"),
        (14, 0, "agrees"),
        (13, 4, "4 more"),
        (6, 11, "11 more"),
        (2, 15, "15 more"),
    ],
)
def test_counts_beyond_five_agree_with_likely_quantities(quantity: int, difference: int, words: str) -> None:
    finer = LargeCount(low=14, median=17, high=19, open=21)
    assert item_difference(MORE_THAN_5, quantity, finer) == difference
    assert describe_difference(MORE_THAN_5, quantity, finer) == words
    assert describe_count(MORE_THAN_5, finer) == "about 17"


def test_an_open_ended_count_agrees_with_all_larger_quantities() -> None:
    finer = LargeCount(low=18, median=21, high=21, open=21)
    assert [item_difference(MORE_THAN_5, quantity, finer) for quantity in (17, 18, 21, 300)] == [4, 0, 0, 0]
    assert describe_difference(MORE_THAN_5, 17, finer) == "at least 4 more"
    assert describe_count(MORE_THAN_5, finer) == "more than 20"
    nearly = LargeCount(low=14, median=18, high=21, open=21)
    assert item_difference(MORE_THAN_5, 300, nearly) == 0


@pytest.mark.parametrize(("predicted", "words"), [(0, "0"), (5, "5"), (MORE_THAN_5, "more than 5")])
def test_a_count_of_the_classes_alone_in_words(predicted: int, words: str) -> None:
    assert describe_count(predicted) == words
