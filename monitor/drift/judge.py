"""Compare a window with the reference: a verdict on each signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from binwatch.bundle import EmbeddingReference, Reference
from binwatch.counts import CLASSES
from binwatch.reference import MIN_REFERENCE_BINS, Signal, effective_sample_size, round_for_card
from monitor.drift import thresholds
from monitor.drift.distances import jensen_shannon, kolmogorov_smirnov, mean_shift
from monitor.drift.windows import Floats, Ints, PhotoSample

MIN_PHOTOS = 50
"""Minimum number of photos to judge. Fewer show only what is obvious without statistics, and the closed forms of the
thresholds do not hold for them."""
WINDOW_LEVEL = 0.005
"""Probability of a false alarm in a window, all signals together. It is half of the 1 in 100 that Binwatch promises:
the rest is a margin for what the theory leaves out, such as photos that resemble each other."""


class Verdict(StrEnum):
    """The verdict on a signal. The set is closed because it is a metric's label."""

    STEADY = "steady"
    DRIFTED = "drifted"
    NOT_ENOUGH_PHOTOS = "not_enough_photos"
    NO_REFERENCE = "no_reference"
    """There is no bundle, or its reference lacks this signal."""
    SMALL_REFERENCE = "small_reference"
    """The bundle's reference has too few bins (binwatch.reference.MIN_REFERENCE_BINS)."""


@dataclass(frozen=True, slots=True)
class SignalResult:
    """The verdict on one signal in one window. `distance` and `threshold` are None if it could not be judged."""

    signal: Signal
    photos: int
    """Photos of the window that have a value of this signal."""
    verdict: Verdict
    distance: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class _Measurement:
    """The distance of a window from the reference, and the function that gives the threshold at a level."""

    distance: float
    threshold: Callable[[float], float]


def judge(
    sample: PhotoSample,
    reference: Reference | None,
    level: float = WINDOW_LEVEL,
    dispersion: Mapping[Signal, float] = MappingProxyType({}),
    *,
    is_reference_dispersed: bool = False,
) -> list[SignalResult]:
    """Judge every signal. `level` is divided evenly among the signals that can be judged (Bonferroni).

    n photos of a signal with dispersion d count as n / d independent ones. This applies to the photos of the window
    and, with `is_reference_dispersed`, to those of the reference as well.
    """
    measurements = {}
    for signal in Signal:
        signal_dispersion = dispersion.get(signal, 1.0)
        if is_reference_dispersed:
            measurements[signal] = _widen(signal, _measure(signal, sample, reference, 1.0), signal_dispersion)
        else:
            measurements[signal] = _measure(signal, sample, reference, signal_dispersion)
    n_judged = sum(isinstance(measurement, _Measurement) for measurement in measurements.values())
    signal_level = level / max(n_judged, 1)
    return [
        _result(signal, measurement, _photo_count(signal, sample), signal_level)
        for signal, measurement in measurements.items()
    ]


def _result(signal: Signal, measurement: _Measurement | Verdict, photos: int, level: float) -> SignalResult:
    if isinstance(measurement, Verdict):
        return SignalResult(signal, photos, measurement)
    threshold = measurement.threshold(level)
    verdict = Verdict.DRIFTED if measurement.distance > threshold else Verdict.STEADY
    return SignalResult(signal, photos, verdict, measurement.distance, threshold)


def _widen(signal: Signal, measurement: _Measurement | Verdict, dispersion: float) -> _Measurement | Verdict:
    """Scale the threshold by the dispersion of both samples.

    Squared distances are proportional to the dispersion, and so, nearly, is the Jensen–Shannon divergence.
    """
    if isinstance(measurement, Verdict):
        return measurement
    factor = dispersion if signal in (Signal.PREDICTED, Signal.EXPECTED) else dispersion**0.5
    return _Measurement(measurement.distance, lambda level: factor * measurement.threshold(level))


def _photo_count(signal: Signal, sample: PhotoSample) -> int:
    if signal is Signal.PREDICTED:
        return sample.size
    if signal is Signal.EXPECTED:
        return len(sample.expected)
    return len(sample.embeddings if signal is Signal.EMBEDDING else sample.values(signal))


def _measure(
    signal: Signal, sample: PhotoSample, reference: Reference | None, dispersion: float
) -> _Measurement | Verdict:
    """Measure a signal, or return the verdict that says why it cannot be judged."""
    if reference is None or not _has_signal(reference, signal, sample):
        return Verdict.NO_REFERENCE
    reference_size = effective_sample_size(reference)
    if signal is Signal.EXPECTED:
        # A reference made from the records may include photos without an expected quantity.
        reference_size = min(reference_size, sum(reference.labels))
    if reference_size < MIN_REFERENCE_BINS:
        return Verdict.SMALL_REFERENCE
    photos = _photo_count(signal, sample)
    if photos < MIN_PHOTOS:
        return Verdict.NOT_ENOUGH_PHOTOS
    sizes = reference_size, max(int(photos / dispersion), 1)
    if signal is Signal.PREDICTED:
        return _measure_categories(sample.predicted, reference.predicted, *sizes)
    if signal is Signal.EXPECTED:
        return _measure_categories(sample.expected, reference.labels, *sizes)
    if signal is Signal.EMBEDDING and reference.embedding:
        return _measure_embedding(sample.embeddings, reference.embedding, *sizes)
    return _measure_distribution(sample.values(signal), reference.quantiles[signal], *sizes)


def _has_signal(reference: Reference, signal: Signal, sample: PhotoSample) -> bool:
    if signal in (Signal.PREDICTED, Signal.EXPECTED):
        counts = reference.predicted if signal is Signal.PREDICTED else reference.labels
        return len(counts) == len(CLASSES) and sum(counts) > 0
    if signal is Signal.EMBEDDING:
        if reference.embedding is None:
            return False
        # Embeddings of another size come from another model of the same name.
        return not len(sample.embeddings) or len(reference.embedding.mean) == sample.embeddings.shape[1]
    return len(reference.quantiles.get(signal, ())) > 1


def _measure_categories(classes: Ints, counts: list[int], reference_size: int, size: int) -> _Measurement:
    distance = jensen_shannon(np.bincount(classes, minlength=len(CLASSES)), np.array(counts))
    return _Measurement(
        float(distance),
        lambda level: thresholds.jensen_shannon_threshold(tuple(counts), reference_size, size, level),
    )


def _measure_distribution(values: Floats, quantiles: list[float], reference_size: int, size: int) -> _Measurement:
    distance = kolmogorov_smirnov(np.array(round_for_card(values)), np.array(quantiles))
    return _Measurement(distance, lambda level: thresholds.kolmogorov_smirnov_threshold(reference_size, size, level))


def _measure_embedding(
    embeddings: Floats, reference: EmbeddingReference, reference_size: int, size: int
) -> _Measurement:
    axes = len(reference.axes)
    return _Measurement(
        mean_shift(embeddings, reference),
        lambda level: thresholds.mean_shift_threshold(reference_size, size, axes, level),
    )
