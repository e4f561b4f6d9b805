"""Conformal p-values: how odd is a count, if the bin holds what the inventory expects?

The model's probability of the expected quantity is compared with its probabilities of the true quantity on calibration
photos: photos that it did not learn from, and whose bins hold what was recorded. The p-value of a bin is the share of
them (the bin itself counted among them) that the model was at most as sure of. If a bin is recorded correctly, it is
like those photos, and its p-value is at most α with a chance of at most α, whatever the model is worth: of correctly
recorded bins, at most that share is flagged on average. (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random
World; here each class has its own calibration photos, "Mondrian", so the promise holds for empty bins and full ones.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Calibration, Category
from binwatch.counts import CLASSES, EVERY, class_of

ENOUGH = 100
"""Photos that a class needs to be calibrated alone: the least p-value is then below 1 %."""
MOST = 2_000
"""Scores kept of a category. More would make the card larger and the p-values hardly finer."""
_DIGITS = 6

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


def chance_of(probabilities: Sequence[float] | None, quantity: int) -> float | None:
    """Probability that the model gave to `quantity` items; None if there are no probabilities."""
    if probabilities is None or len(probabilities) != len(CLASSES):
        return None
    return probabilities[class_of(quantity)]


class PValues:
    """P-values by one model's calibration. Made once, asked often."""

    def __init__(self, calibration: Calibration) -> None:
        self._scores = {index: part.scores for part in calibration.categories for index in part.classes}

    def knows(self, quantity: int) -> bool:
        """Whether the model can answer the quantity's class. If not, its probability of it says nothing of a bin."""
        return class_of(quantity) in self._scores

    def of(self, chance: float, quantity: int) -> float | None:
        """P-value, above 0 and at most 1, of a probability `chance` that was given to the expected `quantity`.

        None if the calibration does not know the quantity's class.
        """
        scores = self._scores.get(class_of(quantity))
        if scores is None:
            return None
        # To the digits of the scores: 1 - 0.451957 is 0.5480430000000001, and would look odder than the same photo's.
        as_odd = len(scores) - bisect_left(scores, round(1 - chance, _DIGITS))
        return (as_odd + 1) / (len(scores) + 1)


def oddness(
    probabilities: Sequence[float] | None, quantity: int, values: PValues | None
) -> tuple[float | None, float | None]:
    """The probability that a model gave to an expected quantity, and its p-value; None where there is none."""
    chance = chance_of(probabilities, quantity) if values is None or values.knows(quantity) else None
    return chance, values.of(chance, quantity) if values and chance is not None else None


def calibrate(
    probabilities: Floats,
    labels: Ints,
    groups: Sequence[str],
    split: str,
    enough: int = ENOUGH,
    answers: Sequence[int] = EVERY,
) -> Calibration:
    """Calibration by n photos that the model did not learn from.

    `probabilities` has shape (n, classes), `labels` (class indexes) shape (n,); `groups` names the bin that each photo
    is of. Photos of one bin resemble each other and would pass for more evidence than they are, so one of each bin and
    class is kept, the same in each run. A class that is not among the model's `answers` gets no p-values: the model
    is as sure as can be that it is another one, whatever the photo shows. Raises ValueError without photos.
    """
    kept = _one_of_each(labels, groups)
    kept = kept[np.isin(labels[kept], answers)]
    if not len(kept):
        raise ValueError("no photos to calibrate with")
    chances = probabilities[kept, labels[kept]].astype(np.float64)
    labels = labels[kept]
    categories = tuple(
        Category(classes=classes, scores=_scores(chances[np.isin(labels, classes)]))
        for classes in _categories(np.bincount(labels, minlength=len(CLASSES)).tolist(), enough, answers)
    )
    return Calibration(photos=sum(len(part.scores) for part in categories), split=split, categories=categories)


def _one_of_each(labels: Ints, groups: Sequence[str]) -> Ints:
    """Positions of one photo of each group and class, drawn at random."""
    drawn = np.random.default_rng(0).permutation(len(labels))
    first = {(groups[position], int(labels[position])): int(position) for position in drawn[::-1]}
    return np.array(sorted(first.values()), dtype=np.int64)


def _categories(photos: list[int], enough: int, answers: Sequence[int]) -> list[tuple[int, ...]]:
    """`answers` in their order, put together until each part has `enough` photos; what is left joins the last part."""
    parts: list[tuple[int, ...]] = []
    open_part: tuple[int, ...] = ()
    for index in answers:
        open_part = (*open_part, index)
        if sum(photos[each] for each in open_part) >= enough:
            parts.append(open_part)
            open_part = ()
    if open_part:
        parts = [*parts[:-1], (*parts[-1], *open_part)] if parts else [open_part]
    return parts


def _scores(chances: Floats) -> tuple[float, ...]:
    """Rounded up, so that rounding makes no bin look odder than it is."""
    if len(chances) > MOST:
        chances = np.random.default_rng(0).choice(chances, MOST, replace=False)
    scale = 10**_DIGITS
    return tuple(float(score) for score in np.sort(np.ceil((1 - chances) * scale) / scale))
