"""Running totals by slice (binwatch.slicing), and their metrics.

The cost of reading them depends on the number of slices and models, not on the number of records.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection, case, func, select

from binwatch.confusion import ConfusionMatrix
from binwatch.counts import Outcome
from binwatch.records.tables import SliceConfusionTotal, SlicePhotoTotal
from binwatch.reference import Signal
from binwatch.slicing import Slicing
from monitor.drift.alarms import AlarmState
from monitor.totals import NO_REASON, slice_names
from monitor.views.discrepancies import FlaggedBins


@dataclass(frozen=True, slots=True)
class SliceTotals:
    """Totals of the photos of one slice."""

    id: int
    name: str
    counted: int
    failed: int
    confusion: ConfusionMatrix
    """Counts against the inventory. Comparisons with the same error share a cell, so errors are meaningful, but not
    classes."""


def read_slices(connection: Connection, slicing: Slicing | None, model: str | None = None) -> list[SliceTotals]:
    """Read the totals of every slice of the rule, by name, for one model or all. Empty without a rule."""
    names = slice_names(connection, slicing)
    if not names:
        return []
    photos, confusions = _read_photos(connection, names, model), _read_confusions(connection, names, model)
    return [
        SliceTotals(id, name, *photos.get(id, (0, 0)), ConfusionMatrix(confusions.get(id, {})))
        for id, name in names.items()
    ]


def _read_photos(connection: Connection, slice_ids: Collection[int], model: str | None) -> dict[int, tuple[int, int]]:
    """Map each slice to its numbers of counted and failed photos."""
    table = SlicePhotoTotal
    sums = (
        func.sum(case((condition, table.photos), else_=0))
        for condition in (table.reason == NO_REASON, table.reason != NO_REASON)
    )
    statement = select(table.slice_id, *sums).where(table.slice_id.in_(slice_ids)).group_by(table.slice_id)
    if model is not None:
        statement = statement.where(table.model_version == model)
    return {row[0]: (int(row[1]), int(row[2])) for row in connection.execute(statement)}


def _read_confusions(
    connection: Connection, slice_ids: Collection[int], model: str | None
) -> dict[int, dict[tuple[int, int], int]]:
    """Map each slice to its comparisons, with one cell per error.

    Reading all 49 cells of 200 slices would take longer than a scrape may.
    """
    table = SliceConfusionTotal
    error = (table.predicted_class - table.true_class).label("error")
    statement = (
        select(table.slice_id, error, func.sum(table.comparisons))
        .where(table.slice_id.in_(slice_ids))
        .group_by(table.slice_id, error)
    )
    if model is not None:
        statement = statement.where(table.model_version == model)
    confusions: dict[int, dict[tuple[int, int], int]] = {}
    for slice_id, difference, comparisons in connection.execute(statement):
        confusions.setdefault(slice_id, {})[max(-difference, 0), max(difference, 0)] = int(comparisons)
    return confusions


def slice_metrics(slices: Iterable[SliceTotals]) -> Iterator[Metric]:
    """Yield the counters, all models together: a label for the model would multiply the number of series."""
    photos = CounterMetricFamily("binwatch_slice_photos", "Photos recorded, by slice.", labels=("slice", "outcome"))
    comparisons = CounterMetricFamily(
        "binwatch_slice_comparisons",
        "Counts compared with the expected quantity of the same bin, by slice.",
        labels=("slice", "outcome"),
    )
    within_one = CounterMetricFamily(
        "binwatch_slice_comparisons_within_one",
        "Comparisons where count and expected quantity differ by at most one item, by slice.",
        labels=("slice",),
    )
    for totals in slices:
        photos.add_metric((totals.name, "counted"), totals.counted)
        photos.add_metric((totals.name, "failed"), totals.failed)
        for outcome in Outcome:
            comparisons.add_metric((totals.name, outcome), totals.confusion.where(outcome=outcome).comparisons)
        within_one.add_metric((totals.name,), totals.confusion.comparisons_within_one)
    yield from (photos, comparisons, within_one)


def slice_flag_metrics(slices: Iterable[SliceTotals], flags: Mapping[int, FlaggedBins]) -> Iterator[Metric]:
    """Yield the number of flagged bins by the slice of their photo."""
    flagged = GaugeMetricFamily(
        "binwatch_slice_flagged_bins",
        "Bins that are flagged now for what the settings say, by slice.",
        labels=("slice", "state"),
    )
    for totals in slices:
        bins = flags.get(totals.id, FlaggedBins(0, 0))
        flagged.add_metric((totals.name, "audited"), bins.flagged - bins.unaudited)
        flagged.add_metric((totals.name, "open"), bins.unaudited)
    yield flagged


def slice_alarm_metrics(states: Mapping[str, AlarmState]) -> Iterator[Metric]:
    """Yield the drift alarms by slice."""
    raised = GaugeMetricFamily(
        "binwatch_slice_drift_alarm",
        "1 while the drift alarm of the signal is raised in the slice, else 0.",
        labels=("slice", "signal"),
    )
    for name, state in states.items():
        for signal in Signal:
            raised.add_metric((name, signal), int(signal in state.alarms))
    yield raised
