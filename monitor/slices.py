"""Sums by slice (binwatch.slicing), as the records keep them, and their metrics.

Reading them costs the same with a thousand records or ten million: what it costs grows with the number of slices, and
of models that have counted.
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
from monitor.totals import COUNTED, slice_names
from monitor.views.discrepancies import FlaggedBins


@dataclass(frozen=True, slots=True)
class SliceTotals:
    """What is recorded of the photos of one slice."""

    id: int
    name: str
    counted: int
    failed: int
    confusion: ConfusionMatrix
    """With the inventory. Comparisons of one error are in one cell: right for all figures, not by class."""


def read_slices(connection: Connection, slicing: Slicing | None, model: str | None = None) -> list[SliceTotals]:
    """Every slice of the rule, in the order of their names, of one model or of all; none without a rule."""
    known = slice_names(connection, slicing)
    if not known:
        return []
    photos, confusions = _photos(connection, known, model), _confusions(connection, known, model)
    nothing = (0, 0)
    return [
        SliceTotals(id, name, *photos.get(id, nothing), ConfusionMatrix(confusions.get(id, {})))
        for id, name in known.items()
    ]


def _photos(connection: Connection, known: Collection[int], model: str | None) -> dict[int, tuple[int, int]]:
    """Slice → photos that were counted, and that were not."""
    of = SlicePhotoTotal
    sums = (
        func.sum(case((is_counted, of.photos), else_=0)) for is_counted in (of.reason == COUNTED, of.reason != COUNTED)
    )
    statement = select(of.slice_id, *sums).where(of.slice_id.in_(known)).group_by(of.slice_id)
    if model is not None:
        statement = statement.where(of.model_version == model)
    return {row[0]: (int(row[1]), int(row[2])) for row in connection.execute(statement)}


def _confusions(
    connection: Connection, known: Collection[int], model: str | None
) -> dict[int, dict[tuple[int, int], int]]:
    """Slice → comparisons, in one cell for each error: all 49 of 200 slices would take longer than a scrape may."""
    of = SliceConfusionTotal
    error = (of.predicted_class - of.true_class).label("error")
    sums = select(of.slice_id, error, func.sum(of.comparisons)).where(of.slice_id.in_(known))
    statement = sums.group_by(of.slice_id, error)
    if model is not None:
        statement = statement.where(of.model_version == model)
    found: dict[int, dict[tuple[int, int], int]] = {}
    for slice_id, off, comparisons in connection.execute(statement):
        found.setdefault(slice_id, {})[max(-off, 0), max(off, 0)] = int(comparisons)
    return found


def slice_metrics(slices: Iterable[SliceTotals]) -> Iterator[Metric]:
    """Counters, of all models together: a label for the model as well would multiply their number."""
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
    for one in slices:
        photos.add_metric((one.name, "counted"), one.counted)
        photos.add_metric((one.name, "failed"), one.failed)
        for outcome in Outcome:
            comparisons.add_metric((one.name, outcome), one.confusion.where(outcome=outcome).comparisons)
        within_one.add_metric((one.name,), one.confusion.comparisons_within_one)
    yield from (photos, comparisons, within_one)


def slice_flag_metrics(slices: Iterable[SliceTotals], flags: Mapping[int, FlaggedBins]) -> Iterator[Metric]:
    """Flagged bins by the slice of their photo."""
    flagged = GaugeMetricFamily(
        "binwatch_slice_flagged_bins",
        "Bins that are flagged now for what the settings say, by slice.",
        labels=("slice", "state"),
    )
    for one in slices:
        bins = flags.get(one.id, FlaggedBins(0, 0))
        flagged.add_metric((one.name, "audited"), bins.flagged - bins.unaudited)
        flagged.add_metric((one.name, "open"), bins.unaudited)
    yield flagged


def slice_alarm_metrics(states: Mapping[str, AlarmState]) -> Iterator[Metric]:
    """Drift alarms by slice."""
    raised = GaugeMetricFamily(
        "binwatch_slice_drift_alarm",
        "1 while the drift alarm of the signal is raised in the slice, else 0.",
        labels=("slice", "signal"),
    )
    for name, state in states.items():
        for signal in Signal:
            raised.add_metric((name, signal), int(signal in state.alarms))
    yield raised
