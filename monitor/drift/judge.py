"""One window against the reference: a verdict on each signal."""

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
from monitor.drift.windows import Ints, PhotoSample

MIN_PHOTOS = 50
"""Fewer show only what anybody sees without statistics, and the closed forms of the thresholds need as many."""
LEVEL = 0.005
"""Chance of a false alarm in a window, all signals together. Half of the 1 in 100 that Binwatch promises: the rest is
for what the theory leaves out, such as photos that resemble each other."""


class Verdict(StrEnum):
    """What can be said of a signal. The set is closed: it is a metric's label."""

    STEADY = "steady"
    DRIFTED = "drifted"
    NOT_ENOUGH_PHOTOS = "not_enough_photos"
    NO_REFERENCE = "no_reference"
    """The model's bundle says nothing of this signal, or there is no bundle."""
    SMALL_REFERENCE = "small_reference"
    """The bundle's reference is of too few bins (binwatch.reference.MIN_REFERENCE_BINS)."""


@dataclass(frozen=True, slots=True)
class SignalResult:
    """One signal in one window. `distance` and `threshold` are None where there is nothing to say."""

    signal: Signal
    photos: int
    """Photos of the window that have a value of this signal."""
    verdict: Verdict
    distance: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class _Measure:
    """A signal that can be judged: how far the window is off, and how far it may be at a level."""

    distance: float
    threshold: Callable[[float], float]


def judge(
    seen: PhotoSample,
    reference: Reference | None,
    level: float = LEVEL,
    dispersion: Mapping[Signal, float] = MappingProxyType({}),
    *,
    of_both: bool = False,
) -> list[SignalResult]:
    """A judgement of every signal. `level` is shared among those that can be judged (Bonferroni).

    Photos of a signal of dispersion d are worth as many independent ones, divided by d: those of the window, and with
    `of_both` those of the reference, too.
    """
    by = {signal: dispersion.get(signal, 1.0) for signal in Signal}
    found = {signal: _measure(signal, seen, reference, 1.0 if of_both else by[signal]) for signal in Signal}
    if of_both:
        found = {signal: _wider(signal, one, by[signal]) for signal, one in found.items()}
    judged = sum(isinstance(one, _Measure) for one in found.values())
    return [_judgement(signal, one, _photos(signal, seen), level / max(judged, 1)) for signal, one in found.items()]


def _judgement(signal: Signal, found: _Measure | Verdict, photos: int, level: float) -> SignalResult:
    if isinstance(found, Verdict):
        return SignalResult(signal, photos, found)
    threshold = found.threshold(level)
    verdict = Verdict.DRIFTED if found.distance > threshold else Verdict.STEADY
    return SignalResult(signal, photos, verdict, found.distance, threshold)


def _wider(signal: Signal, found: _Measure | Verdict, dispersion: float) -> _Measure | Verdict:
    """Squared distances grow as the dispersion of both samples; the Jensen–Shannon divergence is like one."""
    if isinstance(found, Verdict):
        return found
    factor = dispersion if signal in (Signal.PREDICTED, Signal.EXPECTED) else dispersion**0.5
    return _Measure(found.distance, lambda level: factor * found.threshold(level))


def _photos(signal: Signal, seen: PhotoSample) -> int:
    if signal is Signal.EXPECTED:
        return len(seen.expected)
    if signal is Signal.EMBEDDING:
        return len(seen.embeddings)
    return seen.photos if signal in (Signal.PREDICTED, Signal.CONFIDENCE) else len(seen.properties.get(signal, ()))


def _measure(signal: Signal, seen: PhotoSample, reference: Reference | None, dispersion: float) -> _Measure | Verdict:
    if reference is None or not _knows(reference, signal, seen):
        return Verdict.NO_REFERENCE
    worth = effective_sample_size(reference)
    if signal is Signal.EXPECTED:
        worth = min(worth, sum(reference.labels))  # not every photo in the records has an expected quantity
    if worth < MIN_REFERENCE_BINS:
        return Verdict.SMALL_REFERENCE
    photos = _photos(signal, seen)
    if photos < MIN_PHOTOS:
        return Verdict.NOT_ENOUGH_PHOTOS
    sizes = worth, max(int(photos / dispersion), 1)
    if signal is Signal.PREDICTED:
        return _categories(seen.predicted, reference.predicted, *sizes)
    if signal is Signal.EXPECTED:
        return _categories(seen.expected, reference.labels, *sizes)
    if signal is Signal.EMBEDDING and reference.embedding:
        return _embedding(seen, reference.embedding, *sizes)
    return _distribution(signal, seen, reference, *sizes)


def _knows(reference: Reference, signal: Signal, seen: PhotoSample) -> bool:
    if signal in (Signal.PREDICTED, Signal.EXPECTED):
        counts = reference.predicted if signal is Signal.PREDICTED else reference.labels
        return len(counts) == len(CLASSES) and sum(counts) > 0
    if signal is Signal.EMBEDDING:
        where = reference.embedding
        # Embeddings of another size are of another model by the same name.
        return where is not None and (not len(seen.embeddings) or len(where.mean) == seen.embeddings.shape[1])
    return len(reference.quantiles.get(signal, ())) > 1


def _categories(values: Ints, counts: list[int], worth: int, photos: int) -> _Measure:
    distance = jensen_shannon(np.bincount(values, minlength=len(CLASSES)), np.array(counts))
    return _Measure(float(distance), lambda level: thresholds.of_categories(tuple(counts), worth, photos, level))


def _distribution(signal: Signal, seen: PhotoSample, reference: Reference, worth: int, photos: int) -> _Measure:
    values = seen.confidence if signal is Signal.CONFIDENCE else seen.properties[signal]
    distance = kolmogorov_smirnov(np.array(round_for_card(values)), np.array(reference.quantiles[signal]))
    return _Measure(distance, lambda level: thresholds.of_distribution(worth, photos, level))


def _embedding(seen: PhotoSample, where: EmbeddingReference, worth: int, photos: int) -> _Measure:
    axes = len(where.axes)
    return _Measure(
        mean_shift(seen.embeddings, where), lambda level: thresholds.of_mean_shift(worth, photos, axes, level)
    )
