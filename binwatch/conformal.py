"""Conformal p-values: how odd is a photo, if its bin holds what the inventory expects?

A model says how probable each number of items is. The less probability it leaves for the expected quantity or more,
the more it looks as if items were missing; the less it leaves for the expected quantity or fewer, the more it looks as
if there were a surplus. Both are compared with the same of calibration photos: photos that the model did not learn
from, and whose bins hold what was recorded. The p-value of a bin is the share of them (the bin itself counted among
them) that look at least as odd. If a bin is recorded correctly, it is like those photos, and its p-value is at most α
with a chance of at most α, whatever the model is worth: of correctly recorded bins, at most that share is flagged on
average. (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World; here each quantity that the model tells
from others has its own calibration photos, "Mondrian", so the promise holds for empty bins and full ones.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Calibration, Category
from binwatch.counts import CLASSES, EVERY, MORE, Suspicion, class_of, column_of

ENOUGH = 100
"""Photos that a quantity needs to be calibrated alone: the least p-value is then below 1 %."""
MOST = 2_000
"""Scores kept of a category. More would make the card larger and the p-values hardly finer."""
_DIGITS = 6

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model's probabilities say of an expected quantity; None where they say nothing."""

    chance: float | None = None
    """Probability of the expected quantity's class."""
    either: float | None = None
    """P-values, above 0 and at most 1; None without calibration."""
    missing: float | None = None
    surplus: float | None = None

    def p_value(self, suspicion: Suspicion) -> float | None:
        """Of one suspicion."""
        found: float | None = getattr(self, suspicion.value)
        return found


UNKNOWN = Judgement()


def scores_of(probabilities: Sequence[float], quantity: int) -> dict[Suspicion, float]:
    """How odd an expected quantity is by a model's probabilities of 0, 1, … items, the last of them open-ended.

    Of MISSING, 1 − probability of `quantity` or more; of SURPLUS, 1 − probability of `quantity` or fewer; of EITHER,
    the larger one. From 0 to 1, rounded.
    """
    # As workers round them: a photo must not look odder than the very same one among the calibration photos.
    rounded = [round(each, _DIGITS) for each in probabilities]
    expected = column_of(quantity, len(rounded))
    missing = _rounded(sum(rounded[:expected]))
    surplus = _rounded(sum(rounded[expected + 1 :]))
    return {Suspicion.EITHER: max(missing, surplus), Suspicion.MISSING: missing, Suspicion.SURPLUS: surplus}


def _rounded(share: float) -> float:
    return min(max(round(share, _DIGITS), 0.0), 1.0)


class PValues:
    """P-values by one model's calibration. Made once, asked often."""

    def __init__(self, calibration: Calibration) -> None:
        self._categories = {index: part for part in calibration.categories for index in part.classes}

    def of(self, probabilities: Sequence[float], quantity: int) -> Mapping[Suspicion, float] | None:
        """P-values, above 0 and at most 1, of an expected quantity.

        `probabilities` have the columns that the calibration was made with. None if the model cannot answer the
        quantity's class: its probability of it says nothing of a bin.
        """
        category = self._categories.get(column_of(quantity, len(probabilities)))
        if category is None:
            return None
        found = {}
        for suspicion, score in scores_of(probabilities, quantity).items():
            scores: tuple[float, ...] = getattr(category, suspicion.value)
            as_odd = len(scores) - bisect_left(scores, score)
            found[suspicion] = (as_odd + 1) / (len(scores) + 1)
        return found


def judge(
    probabilities: Sequence[float] | None,
    quantity: int,
    values: PValues | None,
    distribution: Sequence[float] | None = None,
) -> Judgement:
    """What a photo's probabilities say of the quantity that is expected in its bin; no p-values without calibration.

    `probabilities` are of the classes; `distribution`, of a model that tells more numbers apart, of 0, 1, … items and
    of more.
    """
    if probabilities is None or len(probabilities) != len(CLASSES):
        return UNKNOWN
    chance = probabilities[class_of(quantity)]
    if values is None:
        return Judgement(chance)
    found = values.of(distribution or probabilities, quantity)
    return UNKNOWN if found is None else Judgement(chance, **{one.value: p for one, p in found.items()})


def calibrate(
    distribution: Floats,
    quantities: Ints,
    groups: Sequence[str],
    split: str,
    enough: int = ENOUGH,
    answers: Sequence[int] = EVERY,
) -> Calibration:
    """Calibration by n photos that the model did not learn from.

    `distribution` has shape (n, classes), or more columns if the model tells more numbers apart, `quantities` (items)
    shape (n,); `groups` names the bin that each photo is of. Photos of one bin resemble each other and would pass for
    more evidence than they are, so one of each bin and column is kept, the same in each run. A class that is not among
    the model's `answers` gets no p-values: the model is as sure as can be that it is another one, whatever the photo
    shows. Raises ValueError without photos.
    """
    width = distribution.shape[1]
    answered = [*(index for index in answers if index < MORE), *(range(MORE, width) if MORE in answers else ())]
    labels = np.array([column_of(int(quantity), width) for quantity in quantities], dtype=np.int64)
    kept = _one_of_each(labels, groups)
    kept = kept[np.isin(labels[kept], answered)]
    if not len(kept):
        raise ValueError("no photos to calibrate with")
    scores = [scores_of(distribution[one].astype(np.float64).tolist(), int(quantities[one])) for one in kept]
    labels = labels[kept]
    categories = tuple(
        _category(columns, [scores[place] for place in np.flatnonzero(np.isin(labels, columns))])
        for columns in _categories(np.bincount(labels, minlength=width).tolist(), enough, answered)
    )
    return Calibration(photos=sum(len(part.either) for part in categories), split=split, categories=categories)


def _category(columns: tuple[int, ...], scores: Sequence[Mapping[Suspicion, float]]) -> Category:
    if len(scores) > MOST:
        drawn = np.random.default_rng(0).choice(len(scores), MOST, replace=False)
        scores = [scores[place] for place in drawn]
    return Category(classes=columns, **{one.value: tuple(sorted(each[one] for each in scores)) for one in Suspicion})


def _one_of_each(labels: Ints, groups: Sequence[str]) -> Ints:
    """Positions of one photo of each group and label, drawn at random."""
    drawn = np.random.default_rng(0).permutation(len(labels))
    first = {(groups[position], int(labels[position])): int(position) for position in drawn[::-1]}
    return np.array(sorted(first.values()), dtype=np.int64)


def _categories(photos: list[int], enough: int, columns: Sequence[int]) -> list[tuple[int, ...]]:
    """`columns` in their order, put together until each part has `enough` photos; what is left joins the last part."""
    parts: list[tuple[int, ...]] = []
    open_part: tuple[int, ...] = ()
    for index in columns:
        open_part = (*open_part, index)
        if sum(photos[each] for each in open_part) >= enough:
            parts.append(open_part)
            open_part = ()
    if open_part:
        parts = [*parts[:-1], (*parts[-1], *open_part)] if parts else [open_part]
    return parts
