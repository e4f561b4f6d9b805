"""Conformal p-values: how odd is a photo, if its bin contains the expected quantity?

A model gives a probability to each number of items. The lower the probability of the expected quantity or more, the
more it looks as if items were missing; the lower the probability of the expected quantity or fewer, the more it looks
like a surplus. Both scores are compared with those of the calibration photos, from which the model did not learn, and
whose bins contained the recorded quantity. The p-value of a bin is the share of these photos, the bin's own included,
that look at least as odd. A correctly recorded bin is like the calibration photos, so its p-value is at most α with a
probability of at most α, however good the model is: on average, at most that share of correctly recorded bins is
flagged. (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World. Here each quantity that the model
distinguishes has its own calibration photos, "Mondrian", so the guarantee holds for empty and for full bins.)
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
"""Photos with which a quantity gets its own category: the smallest p-value is then below 1 %."""
MOST = 2_000
"""Most scores of a category. More would enlarge the card and hardly refine the p-values."""
_DIGITS = 6

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How an expected quantity fits a model's probabilities; None where that is unknown."""

    chance: float | None = None
    """Probability of the expected quantity's class."""
    either: float | None = None
    """P-values, above 0 and at most 1; None without calibration."""
    missing: float | None = None
    surplus: float | None = None

    def p_value(self, suspicion: Suspicion) -> float | None:
        """The p-value of one suspicion."""
        found: float | None = getattr(self, suspicion.value)
        return found


UNKNOWN = Judgement()


def scores_of(probabilities: Sequence[float], quantity: int) -> dict[Suspicion, float]:
    """Oddness scores, from 0 to 1, of an expected quantity, given the probabilities of 0, 1, … items and of more.

    MISSING: 1 − probability of `quantity` or more. SURPLUS: 1 − probability of `quantity` or fewer. EITHER: the larger
    one.
    """
    # Rounded as workers do, or a photo could look odder than the same photo in the calibration.
    rounded = [round(each, _DIGITS) for each in probabilities]
    expected = column_of(quantity, len(rounded))
    missing = _rounded(sum(rounded[:expected]))
    surplus = _rounded(sum(rounded[expected + 1 :]))
    return {Suspicion.EITHER: max(missing, surplus), Suspicion.MISSING: missing, Suspicion.SURPLUS: surplus}


def _rounded(share: float) -> float:
    return min(max(round(share, _DIGITS), 0.0), 1.0)


class PValues:
    """P-values by one model's calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self._categories = {index: part for part in calibration.categories for index in part.classes}

    def of(self, probabilities: Sequence[float], quantity: int) -> Mapping[Suspicion, float] | None:
        """P-values, above 0 and at most 1, of an expected quantity.

        `probabilities` has the same columns as the calibration. None if the calibration has no category of the
        quantity: the model cannot predict it, or no calibration photo shows it with its exact number.
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
    """Judge the expected quantity of a photo's bin; without calibration, there are no p-values.

    `probabilities` are those of the classes; `distribution` has those of 0, 1, … items and of more, if the model
    distinguishes more numbers.
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
    """Calibration with n photos that the model did not learn from.

    `distribution` has shape (n, classes), or more columns if the model distinguishes more numbers; `quantities` (items)
    has shape (n,); `groups` has each photo's bin. Photos of one bin resemble each other and are not independent, so one
    photo per bin and column is kept, the same in each run. Classes that are not in the model's `answers` get no
    p-values, since the model's probability of them is always 0. Raises ValueError without photos.
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
    """Combine adjacent `columns` until each part has `enough` photos; a rest joins the last part."""
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
