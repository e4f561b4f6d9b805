"""The metrics, for Prometheus. All come from the records: they survive restarts and any number of monitors.

Every counter follows from a ledger that only grows, so none ever falls. What may be taken back, as a corrected
audit is, makes a gauge. docs/metrics.md lists them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from binwatch.confusion import INVENTORY, ConfusionMatrix, TruthSource
from binwatch.counts import CLASSES, MORE, Outcome
from binwatch.errors import MetadataReason, Reason
from binwatch.records.audits import AuditAnswer
from binwatch.records.settlement import PhotoState, QuantityState
from binwatch.records.variances import VarianceState
from binwatch.version import version
from monitor.drift.metrics import drift_metrics
from monitor.random_audits import RandomAudits
from monitor.records import RecordsDown
from monitor.services import Services
from monitor.slices import SliceTotals, read_slices, slice_alarm_metrics, slice_flag_metrics, slice_metrics
from monitor.totals import COUNTED, Totals, read_totals
from monitor.views.discrepancies import Level

_EXPECTED = [*CLASSES[:MORE], "more"]
"""Label values of the expected classes. Bounded: a label for every quantity would have no end."""
_Row = tuple[str, str, ConfusionMatrix]
"""A model, the label of a true class, and the comparisons of both."""
_WRONG = (Outcome.UNDER, Outcome.OVER)


class RecordsCollector(Collector):
    """Turns the totals into metrics: one transaction per scrape. Without a database, a scrape says just that."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """The metrics as of now."""
        yield InfoMetricFamily("binwatch_build", "The release of Binwatch.", {"version": version()})
        try:
            totals, slices = self._services.records.read(self._read, probe=True)
        except RecordsDown:
            yield _up(False)
            return
        yield _up(True)
        yield from metrics_of(totals, self._services.cards.to_come())
        if report := self._services.drift.report:
            yield from drift_metrics(report)
        if flags := self._services.flags.report:
            yield from flag_metrics(flags.levels)
        if audits := self._services.random_audits.report:
            yield from random_audit_metrics(audits)
        if self._services.settings.slicing:
            yield from slice_metrics(slices)
            yield from slice_flag_metrics(slices, flags.slices) if flags else ()
            yield from slice_alarm_metrics(report.slices) if report else ()

    def _read(self, connection: Connection) -> tuple[Totals, list[SliceTotals]]:
        return read_totals(connection), read_slices(connection, self._services.settings.slicing)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the records."""
        return ()


def registry_of(services: Services) -> CollectorRegistry:
    """A registry with the records' metrics and nothing else."""
    registry = CollectorRegistry()
    registry.register(RecordsCollector(services))
    return registry


def flag_metrics(levels: Iterable[Level]) -> Iterator[Metric]:
    """Flagged bins at the level of the settings, and how many of them to expect by chance."""
    flagged = GaugeMetricFamily(
        "binwatch_flagged_bins", "Bins that are flagged now, by what for.", labels=("direction", "state")
    )
    by_chance = GaugeMetricFamily(
        "binwatch_flagged_bins_by_chance",
        "Most flagged bins to expect if every bin is recorded correctly.",
        labels=("direction",),
    )
    for level in levels:
        flagged.add_metric((level.direction, "audited"), level.flagged - level.unaudited)
        flagged.add_metric((level.direction, "open"), level.unaudited)
        by_chance.add_metric((level.direction,), level.false_flags)
    yield from (flagged, by_chance)


def random_audit_metrics(found: RandomAudits) -> Iterator[Metric]:
    """What audits of bins drawn at random say of all bins."""
    audits = GaugeMetricFamily(
        "binwatch_random_audits", "Answered draws of bins at random that the estimates are made from.", labels=("of",)
    )
    right = GaugeMetricFamily(
        "binwatch_estimated_right_ratio",
        "Share of all bins that is right by audits of bins drawn at random, and its 95 % interval.",
        labels=("of", "value"),
    )
    for of, audited, estimated in (
        ("counts", found.counts_audited, found.accuracy),
        ("records", found.records_audited, found.inventory),
    ):
        audits.add_metric((of,), audited)
        values = (estimated.share, estimated.interval.low, estimated.interval.high) if estimated else (math.nan,) * 3
        for name, value in zip(("share", "low", "high"), values, strict=True):
            right.add_metric((of, name), value)
    yield from (audits, right)


def metrics_of(totals: Totals, to_come: str | None) -> Iterator[Metric]:
    """Every metric that follows from the totals.

    Label combinations that have not occurred are there with 0: the rate of a counter that appears with 1 misses its
    first increase, and a mean over series that are not there is nothing instead of 0. So are those of models that have
    no record yet: those that a worker noted before its first photo, and the one that is `to_come`.
    """
    models = sorted({*totals.models, *totals.noted, *([to_come] if to_come else [])})
    compared, audited = _rows(totals, TruthSource.INVENTORY, models), _rows(totals, TruthSource.AUDIT, models)
    sighted = _rows(totals, TruthSource.SIGHTED, models)
    yield _photos(totals, models)
    yield _expected_quantities(totals)
    yield _comparisons(compared)
    yield _within_one(compared)
    yield _absolute_error(compared)
    yield _squared_error(compared)
    yield _audits(totals)
    yield _audited_counts("binwatch_audited_counts", "blind", audited)
    yield from _audited_errors(audited)
    yield _audited_quantities("binwatch_audited_expected_quantities", "blind", totals, TruthSource.AUDIT)
    yield _audited_counts("binwatch_sighted_audited_counts", "with the numbers in sight", sighted)
    yield _audited_quantities(
        "binwatch_sighted_audited_expected_quantities", "with the numbers in sight", totals, TruthSource.SIGHTED
    )
    yield _variances(totals)
    yield _bins(totals)
    yield _last_record(totals)
    yield _model(totals)


def _up(up: bool) -> Metric:
    return GaugeMetricFamily("binwatch_records_up", "Whether the records can be read (1) or not (0).", int(up))


def _photos(totals: Totals, models: list[str]) -> Metric:
    family = CounterMetricFamily(
        "binwatch_photos",
        "Photos recorded, counted or failed for a reason.",
        labels=("model", "outcome", "reason"),
    )
    for model in models:
        seen = {reason: photos for (of, reason), photos in totals.photos.items() if of == model}
        for reason, photos in _filled(seen, Reason):
            family.add_metric((model, "failed" if reason else "counted", reason), photos)
    return family


def _expected_quantities(totals: Totals) -> Metric:
    family = CounterMetricFamily(
        "binwatch_expected_quantities",
        "Expected quantities recorded, read or failed for a reason.",
        labels=("outcome", "reason"),
    )
    for reason, number in _filled(totals.expectations, MetadataReason):
        family.add_metric(("failed" if reason else "read", reason), number)
    return family


def _filled(seen: dict[str, int], reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Each reason with its number, those that have not occurred and those that this release does not know included."""
    return [(reason, seen.get(reason, 0)) for reason in dict.fromkeys((COUNTED, *map(str, reasons), *seen))]


def _rows(totals: Totals, reference: TruthSource, models: Iterable[str]) -> list[_Row]:
    matrices = [(model, totals.confusion(reference, model)) for model in models]
    return [
        (model, label, matrix.where(true_class=index))
        for model, matrix in matrices
        for index, label in enumerate(_EXPECTED)
    ]


def _comparisons(rows: list[_Row]) -> Metric:
    family = CounterMetricFamily(
        "binwatch_comparisons",
        "Counts compared with the expected quantity of the same bin.",
        labels=("model", "expected", "outcome"),
    )
    for model, expected, row in rows:
        for outcome in Outcome:
            family.add_metric((model, expected, outcome), row.where(outcome=outcome).comparisons)
    return family


def _within_one(rows: list[_Row]) -> Metric:
    family = CounterMetricFamily(
        "binwatch_comparisons_within_one",
        "Comparisons where count and expected quantity differ by at most one item.",
        labels=("model", "expected"),
    )
    for model, expected, row in rows:
        family.add_metric((model, expected), row.comparisons_within_one)
    return family


def _absolute_error(rows: list[_Row]) -> Metric:
    family = CounterMetricFamily(
        "binwatch_absolute_error_items",
        "Items that counts were under or over the expected quantity, with more than 5 taken as 6.",
        labels=("model", "expected", "outcome"),
        unit="items",
    )
    for model, expected, row in rows:
        for outcome in _WRONG:
            family.add_metric((model, expected, outcome), row.where(outcome=outcome).absolute_error)
    return family


def _squared_error(rows: list[_Row]) -> Metric:
    family = CounterMetricFamily(
        "binwatch_squared_error",
        "Squared differences of counts and expected quantities in items, with more than 5 taken as 6.",
        labels=("model", "expected"),
    )
    for model, expected, row in rows:
        family.add_metric((model, expected), row.squared_error)
    return family


def _audits(totals: Totals) -> Metric:
    family = CounterMetricFamily(
        "binwatch_audits", "Audits entered, by what was answered and how.", labels=("answer", "blind")
    )
    for answer in AuditAnswer:
        for blind in (False, True):
            family.add_metric((answer, str(blind).lower()), totals.audits.get((answer, blind), 0))
    return family


def _audited_counts(name: str, how: str, rows: list[_Row]) -> Metric:
    """Counts against the truth: the audited accuracy, beside the agreement that comparisons measure.

    Gauges, since a corrected audit is taken back: a sum that only grows would hold one that never was true.
    """
    family = GaugeMetricFamily(
        name,
        f"Counts that were audited {how}, as their last audit judges them.",
        labels=("model", "audited", "outcome"),
    )
    for model, audited, row in rows:
        for outcome in Outcome:
            family.add_metric((model, audited, outcome), row.where(outcome=outcome).comparisons)
    return family


def _audited_errors(rows: list[_Row]) -> Iterator[Metric]:
    labels = ("model", "audited")
    errors = GaugeMetricFamily(
        "binwatch_audited_absolute_error_items",
        "Items that counts that were audited blind are under or over what was found, with more than 5 taken as 6.",
        labels=(*labels, "outcome"),
        unit="items",
    )
    squared = GaugeMetricFamily(
        "binwatch_audited_squared_error",
        "Squared differences of counts that were audited blind and what was found in items, with more than 5 taken"
        " as 6.",
        labels=labels,
    )
    for model, audited, row in rows:
        for outcome in _WRONG:
            errors.add_metric((model, audited, outcome), row.where(outcome=outcome).absolute_error)
        squared.add_metric((model, audited), row.squared_error)
    yield from (errors, squared)


def _audited_quantities(name: str, how: str, totals: Totals, reference: TruthSource) -> Metric:
    family = GaugeMetricFamily(
        name,
        f"Expected quantities that were audited {how}, as their last audit judges them.",
        labels=("audited", "outcome"),
    )
    for _, audited, row in _rows(totals, reference, [INVENTORY]):
        for outcome in Outcome:
            family.add_metric((audited, outcome), row.where(outcome=outcome).comparisons)
    return family


def _variances(totals: Totals) -> Metric:
    family = GaugeMetricFamily(
        "binwatch_variances",
        "Differences between audits and the inventory, by what has come of them.",
        labels=("state",),
    )
    for state in VarianceState:
        family.add_metric((state,), totals.variances.get(state, 0))
    return family


def _bins(totals: Totals) -> Metric:
    family = GaugeMetricFamily(
        "binwatch_bins", "Bins by what their latest photo and expected quantity are.", labels=("photo", "expected")
    )
    for photo in PhotoState:
        for expected in QuantityState:
            if (photo, expected) != (PhotoState.NONE, QuantityState.NONE):  # of such a bin nobody knows
                family.add_metric((photo, expected), totals.bins.get((photo, expected), 0))
    return family


def _last_record(totals: Totals) -> Metric:
    family = GaugeMetricFamily(
        "binwatch_last_record_timestamp_seconds",
        "When the last record of this kind was written, in seconds since 1970.",
        labels=("kind",),
        unit="seconds",
    )
    for kind, at in totals.last.items():
        family.add_metric((kind,), at.timestamp())
    return family


def _model(totals: Totals) -> Metric:
    family = InfoMetricFamily(
        "binwatch_model", "The model of the most recent record.", labels=("model", "precision", "provider")
    )
    if totals.in_use:
        family.add_metric((totals.in_use.version, totals.in_use.precision, totals.in_use.provider), {})
    return family
