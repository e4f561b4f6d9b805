"""Figures of each slice, sorted from worst to best."""

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
    """One slice. Shares are 0 to 1, or None if the denominator is 0."""

    name: str
    photos: int
    """Counted photos."""
    failed: int
    """Photos that could not be counted."""
    failed_share: float | None
    agreement: Figures
    """Agreement of counts with the inventory."""
    interval: Interval | None
    """95 % confidence interval (Wilson) of the agreement."""
    flagged: int | None
    """Flagged bins; None until the first flag report."""
    unaudited: int | None
    """Flagged bins that nobody has audited."""


class SlicesView(BaseModel):
    """All slices, sorted by the upper bound of their agreement, lowest first."""

    rule: str | None
    """Expression that assigns photos to slices; None without the setting."""
    model: str | None
    """Model of the figures; None if nothing is recorded yet."""
    slices: list[SliceView]


def view_slices(
    connection: Connection, slicing: Slicing | None, flags: Mapping[int, FlaggedBins] | None, model: str | None = None
) -> SlicesView:
    """Return the slices of one model, by default the model in use. Raises UnknownModel."""
    check_known(model, connection.execute(select(PhotoTotal.model_version).distinct()).scalars().all())
    in_use = read_model_in_use(connection) if model is None else None
    version = in_use.version if in_use else model
    views = [_view(totals, flags) for totals in read_slices(connection, slicing, version)]
    # Sort by the upper bound of the interval, so that a slice whose only comparison is wrong is not the worst.
    views.sort(key=lambda view: (view.interval.high if view.interval else 1.0, view.name))
    return SlicesView(rule=slicing.rule if slicing else None, model=version, slices=views)


def _view(totals: SliceTotals, flags: Mapping[int, FlaggedBins] | None) -> SliceView:
    figures = figures_of(totals.confusion)
    photos = totals.counted + totals.failed
    bins = None if flags is None else flags.get(totals.id, FlaggedBins(0, 0))
    return SliceView(
        name=totals.name,
        photos=totals.counted,
        failed=totals.failed,
        failed_share=totals.failed / photos if photos else None,
        agreement=figures,
        interval=wilson(figures.exact, figures.comparisons),
        flagged=bins.flagged if bins else None,
        unaudited=bins.unaudited if bins else None,
    )
