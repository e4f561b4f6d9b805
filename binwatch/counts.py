"""Counts: the seven classes, 0 to 5 items and "more than 5", and how a count compares with a quantity.

A model may distinguish more numbers: its output is a distribution over 0, 1, … `highest` items and more. The classes
are a view of the distribution.
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
"""Largest quantity with its own class."""
EVERY: tuple[int, ...] = tuple(range(len(CLASSES)))
"""Indexes of all classes. A model can predict only classes that its training photos showed."""


_HALF = 0.5 - 1e-6
"""The median is the first class at which the cumulative probability reaches this; float32 sums are not exactly 1."""


class CountRule(StrEnum):
    """How a count follows from the probabilities of the classes."""

    MODE = "mode"
    """The most probable class, which is most often exact."""
    MEDIAN = "median"
    """The median class, which has the smallest expected absolute error in items."""


class Outcome(StrEnum):
    """How a predicted count compares with an expected or audited quantity."""

    EXACT = "exact"
    UNDER = "under"
    OVER = "over"


class Suspicion(StrEnum):
    """Direction in which a bin may be recorded wrongly. Each has its own p-values."""

    EITHER = "either"
    MISSING = "missing"
    """The bin holds fewer items than expected."""
    SURPLUS = "surplus"
    """The bin holds more items than expected."""


def names_of(columns: Iterable[int], highest: int = HIGHEST) -> str:
    """Names of classes, or of columns of a distribution up to `highest`, for messages: "0, more than 5"."""
    return ", ".join(str(index) if index <= highest else f"more than {highest}" for index in columns)


def column_of(quantity: int, columns: int) -> int:
    """Index of a number of items in a distribution with `columns` columns, of which the last is open-ended.

    Raises ValueError for a negative quantity.
    """
    if quantity < 0:
        raise ValueError(f"a quantity of items cannot be negative: {quantity}")
    return min(quantity, columns - 1)


def class_of(quantity: int) -> int:
    """Class index, 0 to 6, of a number of items. Raises ValueError for a negative quantity."""
    return column_of(quantity, len(CLASSES))


def in_classes(distribution: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Probabilities of 0, 1, … items and of more, (…, n) → probabilities of the classes, (…, 7), of the same dtype.

    Those beyond 5 are summed. Up to seven columns are returned unchanged.
    """
    if distribution.shape[-1] <= len(CLASSES):
        return distribution
    more = distribution[..., MORE:].sum(axis=-1, keepdims=True)
    return np.concatenate([distribution[..., :MORE], more], axis=-1)


def counts_by(rule: CountRule, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Counts by a rule, int64 (n,), from probabilities of the classes, (n, 7), or of more numbers."""
    return median(probabilities) if rule is CountRule.MEDIAN else probabilities.argmax(axis=-1).astype(np.int64)


def median(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Median of each row of (n, quantities), int64 (n,). The open-ended last column counts as its index."""
    reached: npt.NDArray[np.bool_] = probabilities.astype(np.float64).cumsum(axis=-1) >= _HALF
    found: npt.NDArray[np.int64] = reached.argmax(axis=-1).astype(np.int64)
    return found


def error_of(predicted: int, quantity: int) -> int:
    """Signed error in items of class `predicted` against `quantity`, both capped at "more than 5".

    The cap makes this a lower bound if either side is beyond 5. It is for statistics; people are shown
    `difference_of`.
    """
    return predicted - class_of(quantity)


@dataclass(frozen=True, slots=True)
class Beyond:
    """Number of items in a photo that was counted as "more than 5", from a distribution that goes further."""

    low: int
    """Start of the central interval, up to `high`, with 80 % of the probability above 5."""
    median: int
    high: int
    open: int
    """Index of the open-ended last column: stands for this number and all larger ones."""


def beyond(predicted: int, distribution: Sequence[float] | None) -> Beyond | None:
    """The number of items beyond 5; None for any other class, and for a model that has only the classes."""
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

    Without `finer`, "more than 5" counts as 6, so its difference is a lower bound, and it agrees with every quantity
    above 5. With `finer`, it agrees with quantities from `low` to `high`, and differs from others by its median: 17 is
    23 fewer than 40.
    """
    if finer is None:
        return 0 if error_of(predicted, quantity) == 0 else predicted - quantity
    agrees = finer.low <= quantity and (quantity <= finer.high or finer.high == finer.open)
    return 0 if agrees else finer.median - quantity


def difference_in_words(predicted: int, quantity: int, finer: Beyond | None = None) -> str:
    """`difference_of` in words: "4 fewer"; "at least 2 more" for an open-ended count."""
    difference = difference_of(predicted, quantity, finer)
    if difference == 0:
        return "agrees"
    is_open = predicted == MORE and (finer is None or finer.median == finer.open)
    return f"{'at least ' if is_open else ''}{abs(difference)} {'fewer' if difference < 0 else 'more'}"


def count_in_words(predicted: int, finer: Beyond | None = None) -> str:
    """A count in words: "3", "more than 5", "about 17"."""
    if finer is None:
        return CLASSES[predicted]
    return f"more than {finer.open - 1}" if finer.median == finer.open else f"about {finer.median}"


def outcome_by(difference: int) -> Outcome:
    """Exact, under or over, for a difference: counted − expected."""
    if difference == 0:
        return Outcome.EXACT
    return Outcome.UNDER if difference < 0 else Outcome.OVER


def is_suspect(difference: int, suspicion: Suspicion) -> bool:
    """Whether `difference`, counted − expected, is in the direction of `suspicion`."""
    if suspicion is Suspicion.EITHER:
        return difference != 0
    return difference < 0 if suspicion is Suspicion.MISSING else difference > 0


def outcome_of(predicted: int, quantity: int) -> Outcome:
    """Exact, under or over by classes, for statistics. "More than 5" agrees with every quantity above 5."""
    return outcome_by(error_of(predicted, quantity))
