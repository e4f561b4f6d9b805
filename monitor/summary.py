"""The summary of the records, as shown on the page, in the terminal and by the API.

Expected quantities are not the truth, so the share of counts that match them is called agreement, not accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel

from binwatch.confusion import INVENTORY, ConfusionMatrix, TruthSource
from binwatch.counts import CLASSES, Outcome
from binwatch.errors import BinwatchError
from binwatch.records.settlement import PhotoState, QuantityState
from monitor.totals import NO_REASON, RecordKind, Totals

_Z = 1.959964  # standard normal quantile of the two-sided 95 % interval


class UnknownModel(BinwatchError):
    """No photo was ever counted by a model of this version."""


class Interval(BaseModel):
    """A 95 % confidence interval."""

    low: float
    high: float


class Figures(BaseModel):
    """Counts compared with expected quantities. Shares are 0 to 1; figures are None if nothing was compared."""

    comparisons: int
    exact: int
    under: int
    over: int
    agreement: float | None
    """Share of comparisons in which count and expected quantity are equal."""
    within_one: float | None
    """Share of comparisons in which they differ by at most one item."""
    mae: float | None
    """Mean absolute difference in items, with "more than 5" taken as 6: a lower bound."""
    rmse: float | None
    """Root of the mean squared difference in items, with "more than 5" taken as 6."""


class ExpectedFigures(Figures):
    """Figures for one expected quantity."""

    expected: str
    """"0" to "5", or "more than 5"."""


class Agreement(BaseModel):
    """The agreement table of one model, over all its comparisons."""

    total: Figures
    interval: Interval | None
    """95 % confidence interval (Wilson) of the total agreement. It assumes that no bin was compared twice."""
    by_expected: list[ExpectedFigures]


class Done(BaseModel):
    """Numbers of successes, and of failures by reason."""

    done: int
    failed: dict[str, int]


class ModelUsed(BaseModel):
    """The model of the most recent record, and how it ran."""

    version: str
    precision: str
    provider: str


class Audits(BaseModel):
    """Counts of the model, and the inventory, compared with audits. Shares are None without audits.

    Only answers with a number are used, not "at least" or "cannot tell".
    """

    counts: Figures
    interval: Interval | None
    """95 % confidence interval (Wilson) of the audited accuracy."""
    inventory: Figures


class Bins(BaseModel):
    """Bins that cannot be compared."""

    photo_without_quantity: int
    quantity_without_photo: int


class Last(BaseModel):
    """When the last record of each kind was written."""

    photo: datetime | None
    expected_quantity: datetime | None
    comparison: datetime | None
    audit: datetime | None


class Summary(BaseModel):
    """Summary of the records for one model, by default the one in use."""

    model: str | None
    """Model of `photos`, `agreement` and the audits; None while nothing is recorded."""
    models: list[str]
    in_use: ModelUsed | None
    photos: Done
    expected_quantities: Done
    agreement: Agreement
    audits: Audits
    """Blind audits, which measure accuracy."""
    sighted_audits: Audits
    """Audits by people who saw the numbers. They do not measure accuracy, because people confirm what they read."""
    bins: Bins
    last: Last


def summarise(totals: Totals, model: str | None = None) -> Summary:
    """Summarise the totals for `model`, by default the one in use. Raises UnknownModel."""
    check_known(model, totals.models)
    in_use = totals.in_use
    if model is None and in_use:
        model = in_use.version
    return Summary(
        model=model,
        models=totals.models,
        in_use=ModelUsed(version=in_use.version, precision=in_use.precision, provider=in_use.provider)
        if in_use
        else None,
        photos=_done({reason: photos for (version, reason), photos in totals.photos.items() if version == model}),
        expected_quantities=_done(totals.expectations),
        agreement=_agreement(totals, model or ""),
        audits=_audits(totals, TruthSource.AUDIT, model or ""),
        sighted_audits=_audits(totals, TruthSource.SIGHTED, model or ""),
        bins=Bins(
            photo_without_quantity=sum(
                bins
                for (photo, quantity), bins in totals.bins.items()
                if photo != PhotoState.NONE and quantity != QuantityState.KNOWN
            ),
            quantity_without_photo=totals.bins.get((PhotoState.NONE, QuantityState.KNOWN), 0),
        ),
        last=Last(**{kind.value: totals.last.get(kind) for kind in RecordKind}),
    )


def check_known(model: str | None, models: Sequence[str]) -> None:
    """Raise UnknownModel if `model` is given and not among `models`."""
    if model is not None and model not in models:
        raise UnknownModel(f"no photo was counted by a model {model!r}; there are: {', '.join(models) or 'none yet'}")


def wilson(successes: int, trials: int) -> Interval | None:
    """Return Wilson's 95 % interval of a share; None without trials.

    Unlike the normal approximation, it is valid for few trials and near 0 and 1.
    """
    if not trials:
        return None
    share = successes / trials
    spread = _Z * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    scale = 1 + _Z**2 / trials
    middle = share + _Z**2 / (2 * trials)
    # With no or only successes the bound is exactly 0 or 1, which rounding would miss.
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == trials else (middle + spread) / scale
    return Interval(low=low, high=high)


def _done(by_reason: Mapping[str, int]) -> Done:
    failed = {reason: count for reason, count in sorted(by_reason.items()) if reason != NO_REASON}
    return Done(done=by_reason.get(NO_REASON, 0), failed=failed)


def _agreement(totals: Totals, model: str) -> Agreement:
    confusion = totals.confusion(TruthSource.INVENTORY, model)
    total = figures_of(confusion)
    return Agreement(
        total=total,
        interval=wilson(total.exact, total.comparisons),
        by_expected=[
            ExpectedFigures(expected=name, **figures_of(confusion.where(true_class=index)).model_dump())
            for index, name in enumerate(CLASSES)
        ],
    )


def _audits(totals: Totals, source: TruthSource, model: str) -> Audits:
    counts = figures_of(totals.confusion(source, model))
    inventory = figures_of(totals.confusion(source, INVENTORY))
    return Audits(counts=counts, interval=wilson(counts.exact, counts.comparisons), inventory=inventory)


def figures_of(matrix: ConfusionMatrix) -> Figures:
    """Compute the figures of a confusion matrix."""
    return Figures(
        comparisons=matrix.comparisons,
        **{outcome.value: matrix.where(outcome=outcome).comparisons for outcome in Outcome},
        agreement=matrix.agreement,
        within_one=matrix.within_one,
        mae=matrix.mae,
        rmse=matrix.rmse,
    )
