"""What a count is: one of seven classes, 0 to 5 items and "more than 5", and how it compares with a quantity.

A model may tell more numbers apart: its answer is a distribution over 0, 1, … `highest` items and more. The classes are
a view of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import numpy as np
import numpy.typing as npt

CLASSES: tuple[str, ...] = ("0", "1", "2", "3", "4", "5", "more than 5")
MORE = len(CLASSES) - 1
"""Index of the open-ended class "more than 5"."""
HIGHEST = MORE - 1
"""Quantity up to which the classes tell numbers apart."""
EVERY: tuple[int, ...] = tuple(range(len(CLASSES)))
"""Indexes of all classes. A model can answer those of which it has seen training photos, which may be fewer."""


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


def names_of(classes: Iterable[int]) -> str:
    """For messages: "0, more than 5"."""
    return ", ".join(CLASSES[index] for index in classes)


def class_of(quantity: int) -> int:
    """Class index, 0 to 6, of a number of items. Raises ValueError for a negative quantity."""
    if quantity < 0:
        raise ValueError(f"a quantity of items cannot be negative: {quantity}")
    return min(quantity, MORE)


def in_classes(distribution: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Probabilities of 0, 1, … items and of more, (…, n), as those of the classes, (…, 7), of the same type.

    What is beyond 5 is added up. Up to seven are the classes already.
    """
    if distribution.shape[-1] <= len(CLASSES):
        return distribution
    more = distribution[..., MORE:].sum(axis=-1, keepdims=True)
    return np.concatenate([distribution[..., :MORE], more], axis=-1)


def error_of(predicted: int, quantity: int) -> int:
    """Signed error in items of class `predicted` against `quantity`, both capped at "more than 5".

    The cap makes this a lower bound where either side is beyond 5: nobody knows how many "more than 5" are. It is for
    statistics; of one bin people are shown `difference_of`.
    """
    return predicted - class_of(quantity)


def difference_of(predicted: int, quantity: int) -> int:
    """Counted − expected in items, without the cap: class 3 is 4 fewer than a quantity of 7.

    "More than 5" is taken as 6, so of that class it is a lower bound; it agrees with every quantity above 5.
    """
    return 0 if error_of(predicted, quantity) == 0 else predicted - quantity


def difference_in_words(predicted: int, quantity: int) -> str:
    """`difference_of` as people read it: "4 fewer"; "at least 2 more" where the count is open-ended."""
    difference = difference_of(predicted, quantity)
    if difference == 0:
        return "agrees"
    least = "at least " if predicted == MORE else ""
    return f"{least}{abs(difference)} {'fewer' if difference < 0 else 'more'}"


def is_suspect(difference: int, suspicion: Suspicion) -> bool:
    """Whether a count that differs by so many items from what is expected differs in this direction."""
    if suspicion is Suspicion.EITHER:
        return difference != 0
    return difference < 0 if suspicion is Suspicion.MISSING else difference > 0


def outcome_of(predicted: int, quantity: int) -> Outcome:
    """Exact, under or over. "More than 5" agrees with every quantity above 5."""
    error = error_of(predicted, quantity)
    if error == 0:
        return Outcome.EXACT
    return Outcome.UNDER if error < 0 else Outcome.OVER
