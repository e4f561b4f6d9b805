"""Conformal p-values: how odd is a photo, assuming that its bin contains the expected quantity?

A model gives a probability to each number of items. The lower the probability of the expected quantity or more, the
stronger the evidence that items are missing; the lower the probability of the expected quantity or fewer, the stronger
the evidence of a surplus. Each score is compared with the same score of the calibration photos, which were not used for
training and whose bins contained the recorded quantity. The p-value of a bin is the share of these photos, including
the bin's own, that look at least as odd. A correctly recorded bin is like the calibration photos, so its p-value is at
most α with a probability of at most α, however good the model is: on average, at most that share of correctly recorded
bins is flagged. (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World. Here each quantity that the model
distinguishes has its own calibration photos, "Mondrian", so the guarantee holds for empty and for full bins.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Calibration, Category
from binwatch.counts import CLASS_INDEXES, CLASSES, MORE_THAN_5, Suspicion, class_of, column_of

MIN_CATEGORY_PHOTOS = 100
"""Minimum number of photos for which a quantity gets its own category: the smallest p-value is then below 1 %."""
MAX_CATEGORY_SCORES = 2_000
"""Maximum number of scores of a category. More would enlarge the card and hardly refine the p-values."""
_SCORE_DIGITS = 6

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well an expected quantity fits a model's probabilities. Unknown values are None."""

    chance: float | None = None
    """Probability of the expected quantity's class."""
    either: float | None = None
    """P-value of EITHER, above 0 and at most 1. All p-values are None without a calibration for the quantity."""
    missing: float | None = None
    surplus: float | None = None

    def p_value(self, suspicion: Suspicion) -> float | None:
        """Return the p-value of one suspicion."""
        p_value: float | None = getattr(self, suspicion.value)
        return p_value


UNKNOWN_JUDGEMENT = Judgement()


def oddness_scores(probabilities: Sequence[float], quantity: int) -> dict[Suspicion, float]:
    """Compute the oddness scores, 0 to 1, of an expected quantity from the probabilities of 0, 1, … items and "more".

    MISSING: 1 − probability of `quantity` or more. SURPLUS: 1 − probability of `quantity` or fewer. EITHER: the larger
    of the two.
    """
    # Rounded as workers round them. Otherwise a photo could look odder than the same photo in the calibration.
    rounded = [round(probability, _SCORE_DIGITS) for probability in probabilities]
    expected = column_of(quantity, len(rounded))
    missing = _round_score(sum(rounded[:expected]))
    surplus = _round_score(sum(rounded[expected + 1 :]))
    return {Suspicion.EITHER: max(missing, surplus), Suspicion.MISSING: missing, Suspicion.SURPLUS: surplus}


def _round_score(score: float) -> float:
    return min(max(round(score, _SCORE_DIGITS), 0.0), 1.0)


class PValueTable:
    """Computes p-values from the scores of a model's calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self._categories = {column: category for category in calibration.categories for column in category.classes}

    def p_values(self, probabilities: Sequence[float], quantity: int) -> Mapping[Suspicion, float] | None:
        """Return the p-values, above 0 and at most 1, of an expected quantity.

        `probabilities` has the same columns as the calibration. None if the calibration has no category for the
        quantity: the model cannot predict it, or no calibration photo shows exactly that number of items.
        """
        category = self._categories.get(column_of(quantity, len(probabilities)))
        if category is None:
            return None
        p_values = {}
        for suspicion, score in oddness_scores(probabilities, quantity).items():
            scores: tuple[float, ...] = getattr(category, suspicion.value)
            at_least_as_odd = len(scores) - bisect_left(scores, score)
            p_values[suspicion] = (at_least_as_odd + 1) / (len(scores) + 1)
        return p_values


def judge(
    probabilities: Sequence[float] | None,
    quantity: int,
    table: PValueTable | None,
    distribution: Sequence[float] | None = None,
) -> Judgement:
    """Judge the expected quantity of a photo's bin.

    Without `table`, the judgement has no p-values. It is UNKNOWN_JUDGEMENT if the count has no probabilities, or
    `table` has no category for the quantity.

    `probabilities` are those of the classes. `distribution` has the probabilities of 0, 1, … items and "more", if the
    model distinguishes more quantities.
    """
    if probabilities is None or len(probabilities) != len(CLASSES):
        return UNKNOWN_JUDGEMENT
    chance = probabilities[class_of(quantity)]
    if table is None:
        return Judgement(chance)
    p_values = table.p_values(distribution or probabilities, quantity)
    if p_values is None:
        return UNKNOWN_JUDGEMENT
    return Judgement(chance, **{suspicion.value: p_value for suspicion, p_value in p_values.items()})


def calibrate(
    distribution: Floats,
    quantities: Ints,
    groups: Sequence[str],
    split: str,
    min_photos: int = MIN_CATEGORY_PHOTOS,
    answers: Sequence[int] = CLASS_INDEXES,
) -> Calibration:
    """Compute a calibration from n photos that were not used for training.

    `distribution` has shape (n, classes), or more columns if the model distinguishes more quantities; `quantities`
    (items) has shape (n,); `groups` has the bin of each photo. Photos of the same bin are correlated, so only one photo
    per bin and column is kept, the same one in each run. Classes that are not in the model's `answers` get no p-values,
    since the model's probability of them is always 0. Raises ValueError without photos.
    """
    n_columns = distribution.shape[1]
    more = range(MORE_THAN_5, n_columns) if MORE_THAN_5 in answers else ()
    predictable = [*(index for index in answers if index < MORE_THAN_5), *more]
    labels = np.array([column_of(int(quantity), n_columns) for quantity in quantities], dtype=np.int64)
    kept = _draw_one_per_bin(labels, groups)
    kept = kept[np.isin(labels[kept], predictable)]
    if not len(kept):
        raise ValueError("no photos to calibrate with")
    scores = [oddness_scores(distribution[i].astype(np.float64).tolist(), int(quantities[i])) for i in kept]
    labels = labels[kept]
    categories = tuple(
        _make_category(columns, [scores[i] for i in np.flatnonzero(np.isin(labels, columns))])
        for columns in _group_columns(np.bincount(labels, minlength=n_columns).tolist(), min_photos, predictable)
    )
    photos = sum(len(category.either) for category in categories)
    return Calibration(photos=photos, split=split, categories=categories)


def _make_category(columns: tuple[int, ...], scores: Sequence[Mapping[Suspicion, float]]) -> Category:
    if len(scores) > MAX_CATEGORY_SCORES:
        drawn = np.random.default_rng(0).choice(len(scores), MAX_CATEGORY_SCORES, replace=False)
        scores = [scores[i] for i in drawn]
    by_suspicion = {suspicion.value: tuple(sorted(photo[suspicion] for photo in scores)) for suspicion in Suspicion}
    return Category(classes=columns, **by_suspicion)


def _draw_one_per_bin(labels: Ints, groups: Sequence[str]) -> Ints:
    """Return the positions of one random photo per group and label."""
    order = np.random.default_rng(0).permutation(len(labels))
    drawn = {(groups[position], int(labels[position])): int(position) for position in order[::-1]}
    return np.array(sorted(drawn.values()), dtype=np.int64)


def _group_columns(photos: list[int], min_photos: int, columns: Sequence[int]) -> list[tuple[int, ...]]:
    """Group adjacent `columns` until each group has at least `min_photos` photos; a remainder joins the last group."""
    groups: list[tuple[int, ...]] = []
    pending: tuple[int, ...] = ()
    for column in columns:
        pending = (*pending, column)
        if sum(photos[index] for index in pending) >= min_photos:
            groups.append(pending)
            pending = ()
    if pending:
        groups = [*groups[:-1], (*groups[-1], *pending)] if groups else [pending]
    return groups
