"""What a count is: one of seven classes, 0 to 5 items and "more than 5", and how it compares with a quantity.

A model may tell more numbers apart: its answer is a distribution over 0, 1, … `highest` items and more. The classes are
a view of it.
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
MORE = len(CLASSES) - 1
"""Index of the open-ended class "more than 5"."""
HIGHEST = MORE - 1
"""Quantity up to which the classes tell numbers apart."""
EVERY: tuple[int, ...] = tuple(range(len(CLASSES)))
"""Indexes of all classes. A model can answer those of which it has seen training photos, which may be fewer."""


_HALF = 0.5 - 1e-6
"""Of the probability, which the median is the first class to reach; float32's rows do not add up to 1 exactly."""


class CountRule(StrEnum):
    """How a count follows from the probabilities of the classes."""

    MODE = "mode"
    """The most probable class, which is exact most often."""
    MEDIAN = "median"
    """The class with as much probability below it as above it, which has the smallest expected error in items."""


class Outcome(StrEnum):
    """How a predicted count compares with an expected or audited quantity."""

    EXACT = "exact"
    UNDER = "under"
    OVER = "over"


class Suspicion(StrEnum):
    """In which way a bin may be recorded wrongly. Each has p-values of its own."""

    EITHER = "either"
    MISSING = "missing"
    """The bin holds fewer items than expected."""
    SURPLUS = "surplus"
    """The bin holds more items than expected."""


def names_of(columns: Iterable[int], highest: int = HIGHEST) -> str:
    """Of classes, or of columns of a distribution that goes up to `highest`, for messages: "0, more than 5"."""
    return ", ".join(str(index) if index <= highest else f"more than {highest}" for index in columns)


def column_of(quantity: int, columns: int) -> int:
    """Index of a number of items in a distribution of so many columns, of which the last is open-ended.

    Raises ValueError for a negative quantity.
    """
    if quantity < 0:
        raise ValueError(f"a quantity of items cannot be negative: {quantity}")
    return min(quantity, columns - 1)


def class_of(quantity: int) -> int:
    """Class index, 0 to 6, of a number of items. Raises ValueError for a negative quantity."""
    return column_of(quantity, len(CLASSES))


def in_classes(distribution: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Probabilities of 0, 1, … items and of more, (…, n), as those of the classes, (…, 7), of the same type.

    What is beyond 5 is added up. Up to seven are the classes already.
    """
    if distribution.shape[-1] <= len(CLASSES):
        return distribution
    more = distribution[..., MORE:].sum(axis=-1, keepdims=True)
    return np.concatenate([distribution[..., :MORE], more], axis=-1)


def counts_by(rule: CountRule, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The counts of photos, int64 (n,), by probabilities of the classes (n, 7) or of more numbers."""
    return median(probabilities) if rule is CountRule.MEDIAN else probabilities.argmax(axis=-1).astype(np.int64)


def median(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Of each row (n, quantities), int64 (n,): the last column is the number after the one before."""
    reached: npt.NDArray[np.bool_] = probabilities.astype(np.float64).cumsum(axis=-1) >= _HALF
    found: npt.NDArray[np.int64] = reached.argmax(axis=-1).astype(np.int64)
    return found


def error_of(predicted: int, quantity: int) -> int:
    """Signed error in items of class `predicted` against `quantity`, both capped at "more than 5".

    The cap makes this a lower bound where either side is beyond 5: nobody knows how many "more than 5" are. It is for
    statistics; of one bin people are shown `difference_of`.
    """
    return predicted - class_of(quantity)


@dataclass(frozen=True, slots=True)
class Beyond:
    """How many items a photo shows that was counted as "more than 5", by a distribution that goes further."""

    low: int
    """With `high`, the shortest statement that can be made: between them lies 80 % of the probability above 5."""
    median: int
    high: int
    open: int
    """The number that stands for all from itself on."""


def beyond(predicted: int, distribution: Sequence[float] | None) -> Beyond | None:
    """None for a class that is a number, and of a model that has the classes alone."""
    if predicted != MORE or distribution is None or len(distribution) <= len(CLASSES):
        return None
    total, sums = sum(distribution[MORE:]), list(accumulate(distribution[MORE:]))
    if total <= 0:
        return None
    low, median, high = (MORE + bisect_left(sums, share * total) for share in (0.1, 0.5, 0.9))
    last = len(distribution) - 1
    return Beyond(low, min(median, last), min(high, last), last)


def difference_of(predicted: int, quantity: int, finer: Beyond | None = None) -> int:
    """Counted − expected in items, without the cap: class 3 is 4 fewer than a quantity of 7.

    Where a model has the classes alone, "more than 5" is taken as 6, so of that class it is a lower bound; it agrees
    with every quantity above 5. Where it says more, that class agrees with what lies between `low` and `high`, and
    differs from the rest by its median: 17 is 23 fewer than 40.
    """
    if finer is None:
        return 0 if error_of(predicted, quantity) == 0 else predicted - quantity
    agrees = finer.low <= quantity and (quantity <= finer.high or finer.high == finer.open)
    return 0 if agrees else finer.median - quantity


def difference_in_words(predicted: int, quantity: int, finer: Beyond | None = None) -> str:
    """`difference_of` as people read it: "4 fewer"; "at least 2 more" where the count is open-ended."""
    difference = difference_of(predicted, quantity, finer)
    if difference == 0:
        return "agrees"
    is_open = predicted == MORE and (finer is None or finer.median == finer.open)
    return f"{'at least ' if is_open else ''}{abs(difference)} {'fewer' if difference < 0 else 'more'}"


def count_in_words(predicted: int, finer: Beyond | None = None) -> str:
    """A count as people read it: "3", "more than 5", "about 17"."""
    if finer is None:
        return CLASSES[predicted]
    return f"more than {finer.open - 1}" if finer.median == finer.open else f"about {finer.median}"


def outcome_by(difference: int) -> Outcome:
    """Exact, under or over, by `difference_of`."""
    if difference == 0:
        return Outcome.EXACT
    return Outcome.UNDER if difference < 0 else Outcome.OVER


def is_suspect(difference: int, suspicion: Suspicion) -> bool:
    """Whether a count that differs by so many items from what is expected differs in this direction."""
    if suspicion is Suspicion.EITHER:
        return difference != 0
    return difference < 0 if suspicion is Suspicion.MISSING else difference > 0


def outcome_of(predicted: int, quantity: int) -> Outcome:
    """Exact, under or over by classes, which is for statistics. "More than 5" agrees with every quantity above 5."""
    return outcome_by(error_of(predicted, quantity))
