"""The figures that people read: the page, the terminal and the API show the same ones.

Expected quantities are expectations, not truth, so what is measured here is called agreement, never accuracy.
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
from monitor.totals import COUNTED, RecordKind, Totals

_Z = 1.959964  # of the two-sided 95 % interval


class UnknownModel(BinwatchError):
    """No photo was ever counted by a model of this name."""


class Interval(BaseModel):
    """A 95 % confidence interval."""

    low: float
    high: float


class Figures(BaseModel):
    """How counts and expected quantities compare. Shares are 0 to 1; all are None where nothing was compared."""

    comparisons: int
    exact: int
    under: int
    over: int
    agreement: float | None
    """Share of comparisons where count and expected quantity are the same."""
    within_one: float | None
    """Share of comparisons where they differ by at most one item."""
    mae: float | None
    """Mean absolute difference in items, with "more than 5" taken as 6: a lower bound."""
    rmse: float | None
    """Root of the mean squared difference in items, with "more than 5" taken as 6."""


class ExpectedFigures(Figures):
    """Figures of the bins of one expected quantity."""

    expected: str
    """"0" to "5", or "more than 5"."""


class Agreement(BaseModel):
    """The agreement table of one model, over every comparison that it ever took part in."""

    total: Figures
    interval: Interval | None
    """95 % confidence interval (Wilson) of the total agreement, as if no bin had been compared twice."""
    by_expected: list[ExpectedFigures]


class Done(BaseModel):
    """How many went well, and how many failed for each reason."""

    done: int
    failed: dict[str, int]


class ModelUsed(BaseModel):
    """The model of the most recent record, and how it ran."""

    version: str
    precision: str
    provider: str


class Audits(BaseModel):
    """Counts of the model, and the inventory, compared with what people found. Shares are None without audits.

    Of answers that are a number; "at least" and "cannot tell" are none.
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
    """When the last of each was recorded."""

    photo: datetime | None
    expected_quantity: datetime | None
    comparison: datetime | None
    audit: datetime | None


class Summary(BaseModel):
    """What the records say about one model, by default the one in use."""

    model: str | None
    """The model that `photos` and `agreement` are about; None while nothing is recorded."""
    models: list[str]
    in_use: ModelUsed | None
    photos: Done
    expected_quantities: Done
    agreement: Agreement
    audits: Audits
    """Blind audits: accuracy is measured by these."""
    sighted_audits: Audits
    """Audits by people who had the numbers in sight: no measure of accuracy, since people confirm what they read."""
    bins: Bins
    last: Last


def summarise(totals: Totals, model: str | None = None) -> Summary:
    """The figures of `model`, or of the one in use. Raises UnknownModel."""
    check_known(model, totals.models)
    in_use = totals.in_use
    chosen = model if model is not None else in_use.version if in_use else None
    unexpected = [states for states in totals.bins if QuantityState.KNOWN not in states]
    return Summary(
        model=chosen,
        models=totals.models,
        in_use=ModelUsed(version=in_use.version, precision=in_use.precision, provider=in_use.provider)
        if in_use
        else None,
        photos=_done({reason: photos for (of, reason), photos in totals.photos.items() if of == chosen}),
        expected_quantities=_done(totals.expectations),
        agreement=_agreement(totals, chosen or ""),
        audits=_audits(totals, TruthSource.AUDIT, chosen or ""),
        sighted_audits=_audits(totals, TruthSource.SIGHTED, chosen or ""),
        bins=Bins(
            photo_without_quantity=sum(totals.bins[states] for states in unexpected if states[0] != PhotoState.NONE),
            quantity_without_photo=totals.bins.get((PhotoState.NONE, QuantityState.KNOWN), 0),
        ),
        last=Last(**{kind.value: totals.last.get(kind) for kind in RecordKind}),
    )


def check_known(model: str | None, models: Sequence[str]) -> None:
    """Raise UnknownModel if a model is asked for that is not among `models`."""
    if model is not None and model not in models:
        raise UnknownModel(f"no photo was counted by a model {model!r}; there are: {', '.join(models) or 'none yet'}")


def wilson(successes: int, trials: int) -> Interval | None:
    """Wilson's 95 % interval of a share: unlike the usual one it is sound for few trials and near 0 and 1."""
    if not trials:
        return None
    share = successes / trials
    spread = _Z * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    scale = 1 + _Z**2 / trials
    middle = share + _Z**2 / (2 * trials)
    # None or all of them: the bound is exactly there, which rounding would miss.
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == trials else (middle + spread) / scale
    return Interval(low=low, high=high)


def _done(by_reason: Mapping[str, int]) -> Done:
    failed = {reason: number for reason, number in sorted(by_reason.items()) if reason != COUNTED}
    return Done(done=by_reason.get(COUNTED, 0), failed=failed)


def _agreement(totals: Totals, model: str) -> Agreement:
    compared = totals.confusion(TruthSource.INVENTORY, model)
    total = figures_of(compared)
    return Agreement(
        total=total,
        interval=wilson(total.exact, total.comparisons),
        by_expected=[
            ExpectedFigures(expected=name, **figures_of(compared.where(true_class=index)).model_dump())
            for index, name in enumerate(CLASSES)
        ],
    )


def _audits(totals: Totals, reference: TruthSource, model: str) -> Audits:
    counts = figures_of(totals.confusion(reference, model))
    inventory = figures_of(totals.confusion(reference, INVENTORY))
    return Audits(counts=counts, interval=wilson(counts.exact, counts.comparisons), inventory=inventory)


def figures_of(matrix: ConfusionMatrix) -> Figures:
    """How counts and expected quantities compare, by their matrix."""
    return Figures(
        comparisons=matrix.comparisons,
        **{outcome.value: matrix.where(outcome=outcome).comparisons for outcome in Outcome},
        agreement=matrix.agreement,
        within_one=matrix.within_one,
        mae=matrix.mae,
        rmse=matrix.rmse,
    )
