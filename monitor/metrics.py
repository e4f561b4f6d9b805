"""Prometheus metrics. All are computed from the records, so restarts and several monitors do not affect them.

Counters are totals of append-only ledgers, so they never decrease. Values that can be corrected, such as audit results,
are gauges. docs/metrics.md lists all metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import product

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from binwatch.confusion import INVENTORY, ConfusionMatrix, TruthSource
from binwatch.counts import CLASSES, MORE_THAN_5, Outcome
from binwatch.errors import MetadataReason, Reason
from binwatch.records.audits import AuditAnswer
from binwatch.records.settlement import PhotoState, QuantityState
from binwatch.records.variances import VarianceState
from binwatch.version import version
from monitor.drift.metrics import drift_metrics
from monitor.random_audits import RandomAudits
from monitor.records import RecordsDown
from monitor.services import Services
from monitor.slices import read_slices, slice_alarm_metrics, slice_flag_metrics, slice_metrics
from monitor.totals import NO_REASON, Totals, read_totals
from monitor.views.discrepancies import Level

_EXPECTED = [*CLASSES[:MORE_THAN_5], "more"]
"""Label values of the expected classes. They are bounded: a label per quantity would not be."""
_Row = tuple[str, str, ConfusionMatrix]
"""A model, the label of a true class, and the comparisons of the two."""
_Family = CounterMetricFamily | GaugeMetricFamily


class RecordsCollector(Collector):
    """Reads the totals once per scrape. If the records cannot be read, only `binwatch_records_up` is exported, as 0."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        yield InfoMetricFamily("binwatch_build", "The release of Binwatch.", {"version": version()})
        up = "binwatch_records_up", "Whether the records can be read (1) or not (0)."
        try:
            totals, slices = self._services.records.read(
                lambda connection: (read_totals(connection), read_slices(connection, self._services.settings.slicing)),
                probe=True,
            )
        except RecordsDown:
            yield GaugeMetricFamily(*up, 0)
            return
        yield GaugeMetricFamily(*up, 1)
        yield from metrics_of(totals, self._services.cards.next_version())
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

    def describe(self) -> Iterable[Metric]:
        """Return nothing, because registering must not read the records."""
        return ()


def registry_of(services: Services) -> CollectorRegistry:
    """Return a registry with the records' metrics and nothing else."""
    registry = CollectorRegistry()
    registry.register(RecordsCollector(services))
    return registry


def flag_metrics(levels: Iterable[Level]) -> Iterator[Metric]:
    """Yield the number of flagged bins at the level of the settings, and the most to expect by chance."""
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


def random_audit_metrics(random_audits: RandomAudits) -> Iterator[Metric]:
    """Yield the estimates for all bins from audits of randomly drawn bins."""
    audits = GaugeMetricFamily(
        "binwatch_random_audits", "Answered draws of bins at random that the estimates are made from.", labels=("of",)
    )
    right = GaugeMetricFamily(
        "binwatch_estimated_right_ratio",
        "Share of all bins that is right by audits of bins drawn at random, and its 95 % interval.",
        labels=("of", "value"),
    )
    for subject, audited, estimate in (
        ("counts", random_audits.counts_audited, random_audits.accuracy),
        ("records", random_audits.records_audited, random_audits.inventory),
    ):
        audits.add_metric((subject,), audited)
        values = (estimate.share, estimate.interval.low, estimate.interval.high) if estimate else (math.nan,) * 3
        for name, value in zip(("share", "low", "high"), values, strict=True):
            right.add_metric((subject, name), value)
    yield from (audits, right)


def metrics_of(totals: Totals, next_version: str | None) -> Iterator[Metric]:
    """Yield the metrics computed from the totals.

    Label combinations that have not occurred are exported as 0: the rate of a counter that first appears as 1 misses
    that increase, and a mean over absent series is empty instead of 0. This includes models without records: those that
    workers have announced, and `next_version`.
    """
    models = sorted({*totals.models, *totals.noted, *([next_version] if next_version else [])})
    yield from _record_metrics(totals, models)
    yield from _comparison_metrics(_rows(totals, TruthSource.INVENTORY, models))
    yield from _audit_metrics(totals, models)


def _record_metrics(totals: Totals, models: list[str]) -> Iterator[Metric]:
    photos = CounterMetricFamily(
        "binwatch_photos",
        "Photos recorded, counted or failed for a reason.",
        labels=("model", "outcome", "reason"),
    )
    for model in models:
        by_reason = {reason: count for (version, reason), count in totals.photos.items() if version == model}
        for reason, count in _all_reasons(by_reason, Reason):
            photos.add_metric((model, "failed" if reason else "counted", reason), count)
    quantities = CounterMetricFamily(
        "binwatch_expected_quantities",
        "Expected quantities recorded, read or failed for a reason.",
        labels=("outcome", "reason"),
    )
    for reason, count in _all_reasons(totals.expectations, MetadataReason):
        quantities.add_metric(("failed" if reason else "read", reason), count)
    bins = GaugeMetricFamily(
        "binwatch_bins", "Bins by what their latest photo and expected quantity are.", labels=("photo", "expected")
    )
    for photo, expected in product(PhotoState, QuantityState):
        if (photo, expected) != (PhotoState.NONE, QuantityState.NONE):  # there are no records of such bins
            bins.add_metric((photo, expected), totals.bins.get((photo, expected), 0))
    last = GaugeMetricFamily(
        "binwatch_last_record_timestamp_seconds",
        "When the last record of this kind was written, in seconds since 1970.",
        labels=("kind",),
        unit="seconds",
    )
    for kind, at in totals.last.items():
        last.add_metric((kind,), at.timestamp())
    model_in_use = InfoMetricFamily(
        "binwatch_model", "The model of the most recent record.", labels=("model", "precision", "provider")
    )
    if totals.in_use:
        model_in_use.add_metric((totals.in_use.version, totals.in_use.precision, totals.in_use.provider), {})
    yield from (photos, quantities, bins, last, model_in_use)


def _all_reasons(by_reason: dict[str, int], reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Return each reason with its count, including reasons that have not occurred and those of other releases."""
    return [(reason, by_reason.get(reason, 0)) for reason in dict.fromkeys((NO_REASON, *map(str, reasons), *by_reason))]


def _rows(totals: Totals, source: TruthSource, models: Iterable[str]) -> list[_Row]:
    matrices = [(model, totals.confusion(source, model)) for model in models]
    return [
        (model, label, matrix.where(true_class=index))
        for model, matrix in matrices
        for index, label in enumerate(_EXPECTED)
    ]


def _comparison_metrics(rows: list[_Row]) -> Iterator[Metric]:
    comparisons = CounterMetricFamily(
        "binwatch_comparisons",
        "Counts compared with the expected quantity of the same bin.",
        labels=("model", "expected", "outcome"),
    )
    within_one = CounterMetricFamily(
        "binwatch_comparisons_within_one",
        "Comparisons where count and expected quantity differ by at most one item.",
        labels=("model", "expected"),
    )
    errors = CounterMetricFamily(
        "binwatch_absolute_error_items",
        "Items that counts were under or over the expected quantity, with more than 5 taken as 6.",
        labels=("model", "expected", "outcome"),
        unit="items",
    )
    squared = CounterMetricFamily(
        "binwatch_squared_error",
        "Squared differences of counts and expected quantities in items, with more than 5 taken as 6.",
        labels=("model", "expected"),
    )
    for model, expected, row in rows:
        _add_outcomes(comparisons, (model, expected), row)
        within_one.add_metric((model, expected), row.comparisons_within_one)
        _add_errors(errors, squared, (model, expected), row)
    yield from (comparisons, within_one, errors, squared)


def _add_outcomes(family: _Family, labels: tuple[str, ...], row: ConfusionMatrix) -> None:
    for outcome in Outcome:
        family.add_metric((*labels, outcome), row.where(outcome=outcome).comparisons)


def _add_errors(errors: _Family, squared: _Family, labels: tuple[str, ...], row: ConfusionMatrix) -> None:
    for outcome in (Outcome.UNDER, Outcome.OVER):
        errors.add_metric((*labels, outcome), row.where(outcome=outcome).absolute_error)
    squared.add_metric(labels, row.squared_error)


def _audit_metrics(totals: Totals, models: list[str]) -> Iterator[Metric]:
    """Yield the audits, and how counts and inventory compare with them: accuracy, where comparisons show agreement.

    The comparisons with audits are gauges because audits can be corrected: a counter would keep a number that was never
    true.
    """
    audits = CounterMetricFamily(
        "binwatch_audits", "Audits entered, by what was answered and how.", labels=("answer", "blind")
    )
    for answer, blind in product(AuditAnswer, (False, True)):
        audits.add_metric((answer, str(blind).lower()), totals.audits.get((answer, blind), 0))
    errors = GaugeMetricFamily(
        "binwatch_audited_absolute_error_items",
        "Items that counts that were audited blind are under or over what was found, with more than 5 taken as 6.",
        labels=("model", "audited", "outcome"),
        unit="items",
    )
    squared = GaugeMetricFamily(
        "binwatch_audited_squared_error",
        "Squared differences of counts that were audited blind and what was found in items, with more than 5 taken"
        " as 6.",
        labels=("model", "audited"),
    )
    for model, audited, row in _rows(totals, TruthSource.AUDIT, models):
        _add_errors(errors, squared, (model, audited), row)
    variances = GaugeMetricFamily(
        "binwatch_variances",
        "Differences between audits and the inventory, by what has come of them.",
        labels=("state",),
    )
    for state in VarianceState:
        variances.add_metric((state,), totals.variances.get(state, 0))
    yield from (audits, errors, squared, variances)
    yield from _audit_outcomes(totals, models, TruthSource.AUDIT, "binwatch_audited", "blind")
    yield from _audit_outcomes(
        totals, models, TruthSource.SIGHTED, "binwatch_sighted_audited", "with the numbers in sight"
    )


def _audit_outcomes(
    totals: Totals, models: list[str], source: TruthSource, prefix: str, how: str
) -> tuple[Metric, Metric]:
    counts = GaugeMetricFamily(
        f"{prefix}_counts",
        f"Counts that were audited {how}, as their last audit judges them.",
        labels=("model", "audited", "outcome"),
    )
    for model, audited, row in _rows(totals, source, models):
        _add_outcomes(counts, (model, audited), row)
    quantities = GaugeMetricFamily(
        f"{prefix}_expected_quantities",
        f"Expected quantities that were audited {how}, as their last audit judges them.",
        labels=("audited", "outcome"),
    )
    for _, audited, row in _rows(totals, source, [INVENTORY]):
        _add_outcomes(quantities, (audited,), row)
    return counts, quantities
