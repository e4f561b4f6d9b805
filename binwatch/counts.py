"""The seven classes of counts (0 to 5 items and "more than 5"), and how a count compares with a quantity.

A model may distinguish more quantities: its output is a distribution over 0, 1, … `highest` items and "more". The
probabilities of the classes follow from that distribution.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

import numpy as np
import numpy.typing as npt

CLASSES: tuple[str, ...] = ("0", "1", "2", "3", "4", "5", "more than 5")
MORE_THAN_5 = len(CLASSES) - 1
"""Index of the open-ended class "more than 5"."""
MAX_EXACT_COUNT = MORE_THAN_5 - 1
"""Largest number of items with a class of its own."""
CLASS_INDEXES: tuple[int, ...] = tuple(range(len(CLASSES)))
"""Indexes of all classes. A model can predict only the classes of its training photos."""

_MEDIAN_THRESHOLD = 0.5 - 1e-6
"""Cumulative probability at which the median is reached: slightly below 0.5, since float32 sums are not exact."""


class CountRule(StrEnum):
    """Rule by which a count follows from the probabilities of the classes."""

    MODE = "mode"
    """The most probable class, which has the highest expected accuracy."""
    MEDIAN = "median"
    """The median class, which has the smallest expected absolute error in items."""


class Outcome(StrEnum):
    """How a predicted count compares with an expected or audited quantity."""

    EXACT = "exact"
    UNDER = "under"
    OVER = "over"


class Suspicion(StrEnum):
    """Direction in which the recorded quantity of a bin may be wrong. Each has its own p-values."""

    EITHER = "either"
    MISSING = "missing"
    """The bin holds fewer items than expected."""
    SURPLUS = "surplus"
    """The bin holds more items than expected."""


def column_names(columns: Iterable[int], highest: int = MAX_EXACT_COUNT) -> str:
    """Return the names of classes, or of columns of a distribution up to `highest`, as in "0, more than 5"."""
    return ", ".join(str(index) if index <= highest else f"more than {highest}" for index in columns)


def column_of(quantity: int, n_columns: int) -> int:
    """Return the column of a quantity in a distribution with `n_columns` columns, of which the last is open-ended.

    Raises ValueError for a negative quantity.
    """
    if quantity < 0:
        raise ValueError(f"a quantity of items cannot be negative: {quantity}")
    return min(quantity, n_columns - 1)


def class_of(quantity: int) -> int:
    """Return the class index, 0 to 6, of a quantity. Raises ValueError for a negative quantity."""
    return column_of(quantity, len(CLASSES))


def class_probabilities(distribution: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Convert a distribution over 0, 1, … items and "more", shape (…, n), to probabilities of the classes, (…, 7).

    The columns beyond 5 are summed, and the dtype is kept. A distribution of up to seven columns is returned unchanged.
    """
    if distribution.shape[-1] <= len(CLASSES):
        return distribution
    more = distribution[..., MORE_THAN_5:].sum(axis=-1, keepdims=True)
    return np.concatenate([distribution[..., :MORE_THAN_5], more], axis=-1)


def predict_counts(rule: CountRule, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Apply a rule to probabilities of the classes, (n, 7), or of more quantities; returns counts, int64 (n,)."""
    return median_counts(probabilities) if rule is CountRule.MEDIAN else probabilities.argmax(axis=-1).astype(np.int64)


def median_counts(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the median of each row of (n, quantities), int64 (n,). The open-ended last column counts as its index."""
    is_reached: npt.NDArray[np.bool_] = probabilities.astype(np.float64).cumsum(axis=-1) >= _MEDIAN_THRESHOLD
    medians: npt.NDArray[np.int64] = is_reached.argmax(axis=-1).astype(np.int64)
    return medians


def class_error(predicted: int, quantity: int) -> int:
    """Return predicted class − class of `quantity`: a signed error in items, with "more than 5" taken as 6.

    It is used for statistics. Its absolute value is a lower bound if either side is beyond 5. Pages show
    `item_difference` instead.
    """
    return predicted - class_of(quantity)


@dataclass(frozen=True, slots=True)
class LargeCount:
    """Estimated number of items for a count of "more than 5", from a distribution with more columns."""

    low: int
    """Lower end of the central interval with 80 % of the probability above 5."""
    median: int
    high: int
    """Upper end of that interval."""
    open: int
    """Index of the open-ended last column, which stands for this number of items or more."""


def estimate_large_count(predicted: int, distribution: Sequence[float] | None) -> LargeCount | None:
    """Estimate the number of items for a count of "more than 5".

    None for any other count, for a model that has only the classes, and if it gives no probability to more than 5.
    """
    if predicted != MORE_THAN_5 or distribution is None or len(distribution) <= len(CLASSES):
        return None
    total, cumulative = sum(distribution[MORE_THAN_5:]), list(accumulate(distribution[MORE_THAN_5:]))
    if total <= 0:
        return None
    low, median, high = (MORE_THAN_5 + bisect_left(cumulative, share * total) for share in (0.1, 0.5, 0.9))
    last = len(distribution) - 1
    return LargeCount(low, min(median, last), min(high, last), last)


def item_difference(predicted: int, quantity: int, large: LargeCount | None = None) -> int:
    """Return counted − expected in items, where `quantity` is not capped: class 3 is 4 fewer than a quantity of 7.

    Without `large`, "more than 5" counts as 6, so its absolute difference is a lower bound, and it agrees with every
    quantity above 5. With `large`, it agrees with quantities from `large.low` to `large.high`, and differs from others
    by its median: a median of 17 is 23 fewer than 40.
    """
    if large is None:
        return 0 if class_error(predicted, quantity) == 0 else predicted - quantity
    agrees = large.low <= quantity and (quantity <= large.high or large.high == large.open)
    return 0 if agrees else large.median - quantity


def describe_difference(predicted: int, quantity: int, large: LargeCount | None = None) -> str:
    """Describe `item_difference`, as in "4 fewer", or "at least 2 more" for an open-ended count."""
    difference = item_difference(predicted, quantity, large)
    if difference == 0:
        return "agrees"
    is_open = predicted == MORE_THAN_5 and (large is None or large.median == large.open)
    return f"{'at least ' if is_open else ''}{abs(difference)} {'fewer' if difference < 0 else 'more'}"


def describe_count(predicted: int, large: LargeCount | None = None) -> str:
    """Describe a count, as in "3", "more than 5" or "about 17"."""
    if large is None:
        return CLASSES[predicted]
    return f"more than {large.open - 1}" if large.median == large.open else f"about {large.median}"


def outcome_of_difference(difference: int) -> Outcome:
    """Return the outcome for a difference, counted − expected."""
    if difference == 0:
        return Outcome.EXACT
    return Outcome.UNDER if difference < 0 else Outcome.OVER


def is_suspect(difference: int, suspicion: Suspicion) -> bool:
    """Return whether `difference`, counted − expected, is in the direction of `suspicion`."""
    if suspicion is Suspicion.EITHER:
        return difference != 0
    return difference < 0 if suspicion is Suspicion.MISSING else difference > 0


def outcome_of(predicted: int, quantity: int) -> Outcome:
    """Return the outcome by classes, for statistics. "More than 5" agrees with every quantity above 5."""
    return outcome_of_difference(class_error(predicted, quantity))
