"""Estimates of shares of all bins, such as those counted right, from audits of randomly drawn bins.

Bins are drawn independently, with replacement and with known probabilities (Hansen and Hurwitz 1943, Annals of
Mathematical Statistics 14, 333). So a bin that is drawn twice counts twice, even if it is audited once: the contents of
a bin are fixed, and only the draw is random. With unequal probabilities, bins are weighted by the reciprocals of their
probabilities (Hájek's estimator), which makes the sample representative of all bins. The model's own predictions for
all bins make the estimate more precise (prediction-powered inference, PPI++, Angelopoulos, Duchi and Zrnic 2023, arXiv
2311.01453; for unequal probabilities active inference, Zrnic and Candès 2024, arXiv 2403.03208): the audits then only
have to correct the predictions. Bad predictions do no harm, because their weight decreases with their quality.

The 95 % interval is that of Korn and Graubard (1998, Survey Methodology 24, 193): that of Clopper and Pearson, for the
number of audits of bins drawn with equal probability that would give the same variance. The usual approximation, ± t
standard errors, misses the truth far too often if nearly all bins are right and few have been audited
(benchmarks/audits.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from monitor.quantiles import f_quantile
from monitor.summary import Interval

MIN_AUDITS = 30
"""Minimum number of audits for an estimate. If all are equally probable, the interval is then at most 0.375 wide."""
_MIN_EACH_ANSWER = 10
"""Minimum number of audits with each answer for predictions to be used. With fewer, their quality is unknown, and
intervals would be too narrow."""
_LEVEL = 0.05
_MAX_EQUIVALENT = 1e6
"""Maximum number of equivalent audits: predictions that have never been wrong may still be wrong."""
_EPSILON = 1e-9
"""Values below this are rounding errors."""

Floats = npt.NDArray[np.float64]


class ShareEstimate(BaseModel):
    """A share of all bins, 0 to 1, estimated from audits of randomly drawn bins."""

    share: float
    interval: Interval
    """95 % confidence interval."""
    audits: int
    equivalent: float
    """Number of audits that would be as precise with equal probabilities and without predictions."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """The model's predictions, made without audits: the probability that the answer is yes."""

    drawn: Floats
    """Predictions for the drawn bins, shape (n,). They need not be calibrated."""
    mean: float
    """Mean prediction for all bins."""
    error: float = 0.0
    """Standard error of `mean`, if it was computed from a sample of all bins."""


def estimate(
    answers: npt.ArrayLike, draw_probabilities: npt.ArrayLike, predictions: Predictions | None = None
) -> ShareEstimate:
    """Estimate the share of all bins whose answer is yes (1; no is 0).

    `answers` are those of the drawn bins, shape (n,), n ≥ 3. `draw_probabilities`, of the same shape, may be scaled by
    any factor. Raises ValueError for probabilities that are not positive.
    """
    yes, probabilities = np.asarray(answers, np.float64), np.asarray(draw_probabilities, np.float64)
    if not (probabilities > 0).all():
        raise ValueError("the probabilities of drawn bins must be above 0")
    n, weights = len(yes), probabilities.mean() / probabilities
    weights /= weights.mean()
    rarer_answers = min(np.count_nonzero(yes), n - np.count_nonzero(yes))
    if rarer_answers == 0:  # no variance is observed, so the number of equivalent audits follows from the weights
        return _estimate(float(yes[0]), n / float(weights @ weights / n), n)
    share = float(weights @ yes / n)
    residuals, variance, fitted = weights * (yes - share), 0.0, 0
    if predictions and rarer_answers >= _MIN_EACH_ANSWER and np.ptp(predictions.drawn) > _EPSILON:
        mean = weights @ predictions.drawn / n
        deviations = weights * (predictions.drawn - mean)
        slope = max(float(residuals @ deviations / (deviations @ deviations)), 0.0)
        share = min(max(float(share + slope * (predictions.mean - mean)), 1 / n**2), 1 - 1 / n**2)
        residuals = residuals - slope * deviations
        variance, fitted = (slope * predictions.error) ** 2, 1
    # Divided by n: equal probabilities without predictions are then equivalent to n audits, and the interval is exact.
    variance += float(residuals @ residuals) / n**2 * (n - 1) / (n - 1 - fitted)
    return _estimate(share, min(share * (1 - share) / max(variance, 1 / _MAX_EQUIVALENT), _MAX_EQUIVALENT), n)


def _estimate(share: float, equivalent: float, audits: int) -> ShareEstimate:
    interval = clopper_pearson(share * equivalent, equivalent)
    return ShareEstimate(share=share, interval=interval, audits=audits, equivalent=equivalent)


def clopper_pearson(yes: float, audits: float) -> Interval:
    """Return the exact 95 % interval of the share of `yes` among `audits`, which need not be whole numbers."""
    no = audits - yes
    return Interval(low=_lower_bound(yes, no), high=1 - _lower_bound(no, yes))


def _lower_bound(yes: float, no: float) -> float:
    """Return the share at which at least `yes` positive answers have a probability of 2.5 %."""
    if yes < _EPSILON:
        return 0.0
    odds = yes * f_quantile(1 - _LEVEL / 2, 2 * yes, 2 * (no + 1)) / (no + 1)
    return odds / (1 + odds)
