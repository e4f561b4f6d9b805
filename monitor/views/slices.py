"""Figures by slice, the worst first."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from sqlalchemy import Connection, select

from binwatch.records.tables import PhotoTotal
from binwatch.slicing import Slicing
from monitor.slices import SliceTotals, read_slices
from monitor.summary import Figures, Interval, check_known, figures_of, wilson
from monitor.totals import read_model_in_use
from monitor.views.discrepancies import FlaggedBins


class SliceView(BaseModel):
    """One slice. Shares are 0 to 1, and None where there is nothing to take a share of."""

    name: str
    photos: int
    """Those that were counted."""
    failed: int
    """Those that could not be counted."""
    failed_share: float | None
    agreement: Figures
    """With the inventory."""
    interval: Interval | None
    """95 % confidence interval (Wilson) of the agreement."""
    flagged: int | None
    """Bins that are flagged now; None until it has been computed."""
    unaudited: int | None
    """Those of them that nobody has audited."""


class SlicesView(BaseModel):
    """Every slice, sorted by the upper bound of its agreement, the lowest first."""

    rule: str | None
    """The expression that slices are found by; None without the setting."""
    model: str | None
    """The model that the figures are of; None while nothing is recorded."""
    slices: list[SliceView]


def view_slices(
    connection: Connection, slicing: Slicing | None, flags: Mapping[int, FlaggedBins] | None, model: str | None = None
) -> SlicesView:
    """Of one model, by default the one in use. Raises UnknownModel."""
    check_known(model, connection.execute(select(PhotoTotal.model_version).distinct()).scalars().all())
    in_use = read_model_in_use(connection) if model is None else None
    chosen = in_use.version if in_use else model
    found = read_slices(connection, slicing, chosen)
    views = [_view(one, flags) for one in found]
    # Few comparisons say little: a slice that was wrong in one of one is not the worst.
    views.sort(key=lambda one: (one.interval.high if one.interval else 1.0, one.name))
    return SlicesView(rule=slicing.rule if slicing else None, model=chosen, slices=views)


def _view(one: SliceTotals, flags: Mapping[int, FlaggedBins] | None) -> SliceView:
    figures = figures_of(one.confusion)
    every = one.counted + one.failed
    bins = None if flags is None else flags.get(one.id, FlaggedBins(0, 0))
    return SliceView(
        name=one.name,
        photos=one.counted,
        failed=one.failed,
        failed_share=one.failed / every if every else None,
        agreement=figures,
        interval=wilson(figures.exact, figures.comparisons),
        flagged=bins.flagged if bins else None,
        unaudited=bins.unaudited if bins else None,
    )
