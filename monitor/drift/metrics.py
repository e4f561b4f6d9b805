"""The drift report as gauges. Distances cannot be derived from counters, so they are exported for fixed windows."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from binwatch.reference import Signal
from binwatch.settings import DriftReference
from monitor.drift.judge import Verdict
from monitor.drift.report import DriftReport


def drift_metrics(report: DriftReport) -> Iterator[Metric]:
    """Yield all metrics of the report. Unknown figures are omitted, never NaN."""
    # Omitted if there is a problem, so that BinwatchDriftStale fires: alarms that cannot be stored are not raised.
    if report.problem is None:
        yield GaugeMetricFamily(
            "binwatch_drift_update_timestamp_seconds",
            "When the drift report was made, in seconds since 1970.",
            report.at.timestamp(),
            unit="seconds",
        )
    yield from _window_metrics(report)
    yield from _signal_metrics(report)
    yield from _reference_metrics(report)
    if report.windows:
        alarm = GaugeMetricFamily(
            "binwatch_drift_alarm", "1 while the signal's drift alarm is raised, else 0.", labels=("signal",)
        )
        for signal in Signal:
            alarm.add_metric((signal,), int(signal in report.alarms))
        yield alarm


def _reference_metrics(report: DriftReport) -> Iterator[Metric]:
    reference = GaugeMetricFamily(
        "binwatch_drift_reference", "1 for what drift alarms compare photos with, else 0.", labels=("reference",)
    )
    for baseline in DriftReference:
        reference.add_metric((baseline,), int(baseline is report.state.reference))
    yield reference
    yield GaugeMetricFamily(
        "binwatch_drift_reference_hours",
        "Hours of the week, of 168, whose photos could be compared with the same hours before.",
        len(report.state.hours),
    )


def _window_metrics(report: DriftReport) -> Iterator[Metric]:
    photos = GaugeMetricFamily("binwatch_window_photos", "Photos of the window that were read.", labels=("window",))
    compared = GaugeMetricFamily(
        "binwatch_window_compared_photos", "Photos of the window with an expected quantity.", labels=("window",)
    )
    agreement = GaugeMetricFamily(
        "binwatch_window_agreement_ratio",
        "Share of the compared photos whose count is the expected quantity.",
        labels=("window",),
    )
    estimated = GaugeMetricFamily(
        "binwatch_window_estimated_accuracy_ratio",
        "Accuracy estimated from the model's probabilities, without labels.",
        labels=("window",),
    )
    for window in report.windows:
        photos.add_metric((window.window,), window.photos)
        compared.add_metric((window.window,), window.compared)
        if window.agreement is not None:
            agreement.add_metric((window.window,), window.agreement)
        if window.estimated is not None:
            estimated.add_metric((window.window,), window.estimated)
    yield from (photos, compared, agreement, estimated)


def _signal_metrics(report: DriftReport) -> Iterator[Metric]:
    labels = ("window", "signal")
    distance = GaugeMetricFamily("binwatch_drift_distance", "How far the window is from the reference.", labels=labels)
    threshold = GaugeMetricFamily(
        "binwatch_drift_threshold", "Distance that chance alone hardly ever exceeds at this size.", labels=labels
    )
    verdict = GaugeMetricFamily(
        "binwatch_drift_verdict", "1 for the verdict on the signal, 0 for the others.", labels=(*labels, "verdict")
    )
    for window in report.windows:
        for result in window.results:
            values = (window.window, result.signal)
            for kind in Verdict:
                verdict.add_metric((*values, kind), int(result.verdict is kind))
            if result.distance is not None and result.threshold is not None:
                distance.add_metric(values, result.distance)
                threshold.add_metric(values, result.threshold)
    yield from (distance, threshold, verdict)
