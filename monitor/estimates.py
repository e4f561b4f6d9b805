"""Shares of all bins, such as those counted right, from audits of bins that were drawn at random, with 95 % intervals.

Each draw is of one bin out of all, with a known probability, and independent of the others: draws with replacement
(Hansen and Hurwitz 1943, Annals of Mathematical Statistics 14, 333). So a bin that is drawn twice counts twice, also if
nobody looks again: what there is to find in a bin is fixed, and chance is only in which bins are drawn. Drawn with
unequal probability, bins weigh by its reciprocal (Hájek's estimator): then the sample is like all bins again. What the
model itself says of every bin sharpens the figure (prediction-powered inference, PPI++, Angelopoulos, Duchi and Zrnic
2023, arXiv 2311.01453; for unequal draws active inference, Zrnic and Candès 2024, arXiv 2403.03208): audits then have
to tell only where the model's own estimate is off. It may be wrong without harm: the less it is worth, the less weight
it gets.

The interval is that of Korn and Graubard (1998, Survey Methodology 24, 193): of Clopper and Pearson, for as many audits
of bins drawn alike as would have the same variance. The usual one, ± t standard errors, misses the truth far too often
where nearly all bins are right and few have been audited (benchmarks/audits.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from monitor.quantiles import fisher
from monitor.summary import Interval

FEWEST = 30
"""Audits below which nothing is said: an interval could be more than a third as wide as all there is."""
_ENOUGH = 10
"""Audits of either answer that predictions need. With fewer, nobody can tell how well they predict: intervals would be
too narrow."""
_LEVEL = 0.05
_MOST = 1e6
"""Audits that nothing is worth more than: predictions that were never wrong so far may be wrong yet."""
_NONE = 1e-9
"""What rounding leaves of nothing."""

Floats = npt.NDArray[np.float64]


class ShareEstimate(BaseModel):
    """A share of all bins, 0 to 1, as audits of bins drawn at random tell it."""

    share: float
    interval: Interval
    """95 % confidence interval."""
    audits: int
    equivalent: float
    """As many audits of bins drawn alike, without predictions, would tell as much."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the model expects, before any audit: for each bin, the probability that the answer is yes."""

    drawn: Floats
    """Of the drawn bins, shape (n,). Need not be calibrated."""
    mean: float
    """Of all bins."""
    error: float = 0.0
    """Standard error of `mean`, if it is from a sample of all bins."""


def estimate(answers: npt.ArrayLike, drawn_as: npt.ArrayLike, predictions: Predictions | None = None) -> ShareEstimate:
    """The share of all bins whose answer is yes (1, not 0).

    `answers` of the drawn bins, shape (n,), n ≥ 3; `drawn_as`, of the same shape, is the probability with which each
    was drawn, or any multiple of it. Raises ValueError for probabilities that are not above 0.
    """
    yes, probabilities = np.asarray(answers, np.float64), np.asarray(drawn_as, np.float64)
    if not (probabilities > 0).all():
        raise ValueError("a bin that is drawn with probability 0 cannot be drawn")
    n, weights = len(yes), probabilities.mean() / probabilities
    weights /= weights.mean()
    fewer = min(np.count_nonzero(yes), n - np.count_nonzero(yes))
    if fewer == 0:  # there is no variance to see: what they are worth follows from their weights
        return _estimate(float(yes[0]), n / float(weights @ weights / n), n)
    share = float(weights @ yes / n)
    residuals, variance, fitted = weights * (yes - share), 0.0, 0
    if predictions and fewer >= _ENOUGH and np.ptp(predictions.drawn) > _NONE:
        mean = weights @ predictions.drawn / n
        off = weights * (predictions.drawn - mean)
        slope = max(float(residuals @ off / (off @ off)), 0.0)
        share = min(max(float(share + slope * (predictions.mean - mean)), 1 / n**2), 1 - 1 / n**2)
        residuals = residuals - slope * off
        variance, fitted = (slope * predictions.error) ** 2, 1
    # Divided by n alone: bins drawn alike without predictions are then worth just n audits, and the interval is exact.
    variance += float(residuals @ residuals) / n**2 * (n - 1) / (n - 1 - fitted)
    return _estimate(share, min(share * (1 - share) / max(variance, 1 / _MOST), _MOST), n)


def _estimate(share: float, equivalent: float, audits: int) -> ShareEstimate:
    interval = clopper_pearson(share * equivalent, equivalent)
    return ShareEstimate(share=share, interval=interval, audits=audits, equivalent=equivalent)


def clopper_pearson(yes: float, audits: float) -> Interval:
    """The 95 % interval that covers at least 95 %, of so many answers; neither needs to be a whole number."""
    no = audits - yes
    return Interval(low=_least(yes, no), high=1 - _least(no, yes))


def _least(yes: float, no: float) -> float:
    """The share at which as many answers as these, or more, have a chance of 2.5 %."""
    if yes < _NONE:
        return 0.0
    odds = yes * fisher(1 - _LEVEL / 2, 2 * yes, 2 * (no + 1)) / (no + 1)
    return odds / (1 + odds)
