"""Simulate quarters of a monitor's life: when drift alarms are raised, without drift and after a disturbance.

The rule is that of monitor.drift.alarms, computed for all batches of a quarter at once, because `python -m
benchmarks.drift` needs hundreds of thousands of them. tests/benchmarks/test_quarters.py compares the two. Distribution
functions are compared at every fourth quantile of the reference only, which reduces a distance by at most 1/100.

A warehouse has as many bins as there are bin groups in the pool. Photos are taken along walks of WALK_BINS neighbouring
bins in the order of the photos' keys, so the photos of a batch resemble each other as they do in the data; each photo
of a bin is a random photo of its group. Photos arrive at night at a tenth of the rate by day.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from binwatch.bundle import Reference
from binwatch.counts import CLASSES
from binwatch.reference import Signal, effective_sample_size
from monitor import quantiles
from monitor.drift import thresholds
from monitor.drift.alarms import (
    DISPERSION_MEMORY,
    DISPERSION_PRIOR,
    FALSE_ALARM_BUDGET,
    MAX_RECENT_ALARMS,
    MIN_CALM_BATCHES,
    MIN_EMBEDDINGS,
    QUARTER,
    REPEAT_LEVEL_FACTOR,
    WINDOW_LENGTHS,
)
from monitor.drift.batches import MAX_BATCH_PHOTOS, MIN_BATCH_INTERVAL
from monitor.drift.dispersion import MAX_DISPERSION, QUANTILE_STEP
from monitor.drift.distances import jensen_shannon, levels_at
from monitor.drift.judge import MIN_PHOTOS, WINDOW_LEVEL
from monitor.drift.windows import MAX_WINDOW_PHOTOS, Floats, Ints

QUARTER_MINUTES = int(QUARTER.total_seconds() // 60)
MINUTES_PER_DAY = 24 * 60
WALK_BINS = 10
"""Default length of a walk."""
NIGHT_RATE = 0.1
"""Rate of photos at night, relative to that by day."""
DAY_HOURS = (6, 22)
CATEGORICAL_SIGNALS = (Signal.PREDICTED, Signal.EXPECTED)


@dataclass(frozen=True)
class PhotoValues:
    """Values of n photos, one row each."""

    values: dict[Signal, Floats]
    """Values of the continuous signals, shape (n,)."""
    classes: dict[Signal, Ints]
    """Classes of CATEGORICAL_SIGNALS, shape (n,)."""
    embeddings: Floats

    @property
    def signals(self) -> list[Signal]:
        """The signals that are monitored."""
        return [*self.values, *self.classes, Signal.EMBEDDING]


def concatenate(a: PhotoValues, b: PhotoValues) -> PhotoValues:
    """Return the rows of `a`, followed by those of `b`."""
    return PhotoValues(
        {signal: np.concatenate([a.values[signal], b.values[signal]]) for signal in a.values},
        {signal: np.concatenate([a.classes[signal], b.classes[signal]]) for signal in a.classes},
        np.concatenate([a.embeddings, b.embeddings]),
    )


@dataclass(frozen=True)
class Stream:
    """Photos in batches. For photo i: `batch[i]` ascends, `row[i]` is its row in PhotoValues, `bin[i]` its bin."""

    batch: Ints
    row: Ints
    bin: Ints
    minutes: Ints
    """Minutes from the previous batch to each batch."""


@dataclass
class RaisedAlarm:
    """An alarm, with the batch that raised it and the length of the window in batches."""

    signal: Signal
    batch: int
    batches: int


def minute_weights(minutes: int) -> Floats:
    """Return the rate of photos in each minute, relative to the mean rate."""
    rates = np.where(is_night(np.arange(minutes) // 60 % 24), NIGHT_RATE, 1.0)
    return rates / rates.mean()


def batch_sizes_and_intervals(per_hour: float, minutes: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Return the number of photos recorded for each batch, and its minutes since the previous batch.

    A batch closes once there are MIN_PHOTOS, and not before MIN_BATCH_INTERVAL has passed.
    """
    recorded = np.cumsum(random.poisson(per_hour / 60 * minute_weights(minutes)))
    min_interval = int(MIN_BATCH_INTERVAL.total_seconds() // 60)
    batches, n_batched, previous = [], 0, -min_interval
    while True:
        closing = max(int(np.searchsorted(recorded, n_batched + MIN_PHOTOS)), previous + min_interval)
        if closing >= minutes:
            break
        batches.append((recorded[closing] - n_batched, closing - previous))
        n_batched, previous = int(recorded[closing]), closing
    sizes, intervals = np.array(batches or np.empty((0, 2), int)).T
    return sizes, intervals


def is_night(hours: Ints) -> np.ndarray:
    """Return whether each hour of the day, 0 to 23, is at night."""
    return (hours < DAY_HOURS[0]) | (hours >= DAY_HOURS[1])


def make_stream(
    sizes: Ints,
    minutes: Ints,
    groups: Ints,
    rows: Ints,
    random: np.random.Generator,
    walk: int = WALK_BINS,
    share_per_day: float = 1.0,
) -> Stream:
    """Draw the photos of batches with `sizes` recorded photos each.

    `groups` are the bins of `rows`, numbered in the order of keys. The photos of a day are of one stretch of
    neighbouring bins, which is the share `share_per_day` of all bins.
    """
    bins, photos_per_bin = np.unique(groups, return_counts=True)
    stretch = int(share_per_day * len(bins))
    days = np.cumsum(minutes) // MINUTES_PER_DAY
    starts = random.integers(len(bins), size=days[-1] + 1)[days] if share_per_day < 1 else np.zeros(len(days), int)
    rows_by_bin = rows[np.argsort(groups, kind="stable")]
    first_row = np.concatenate([[0], np.cumsum(photos_per_bin)[:-1]])
    parts = []
    for size in np.unique(sizes):
        batches = np.flatnonzero(sizes == size)
        n_photos = min(int(size), MAX_BATCH_PHOTOS, stretch)
        # Neighbours are as rare in a batch drawn from many photos as they are among these photos.
        length = max(walk * n_photos // int(size), 1)
        for chunk in np.array_split(batches, max(1, len(batches) // 2000)):
            walks = np.argsort(random.random((len(chunk), stretch // length)), axis=1)
            chosen = (walks[:, :, None] * length + np.arange(length)).reshape(len(chunk), -1)[:, :n_photos]
            chosen = (chosen + starts[chunk, None]) % len(bins)
            parts.append(np.stack([np.repeat(chunk, chosen.shape[1]), chosen.ravel()]))
    batch, bin_ = np.concatenate(parts, axis=1)
    order = np.argsort(batch, kind="stable")
    batch, bin_ = batch[order], bin_[order]
    row = rows_by_bin[first_row[bin_] + (random.random(len(bin_)) * photos_per_bin[bin_]).astype(int)]
    return Stream(batch, row, bin_, minutes)


def photo_minutes(stream: Stream) -> Floats:
    """Return the minute of each photo. The photos of a batch are spread over its time by `minute_weights`."""
    ends = np.cumsum(stream.minutes)
    cumulative = np.concatenate([[0.0], np.cumsum(minute_weights(int(ends[-1])))])
    first = np.searchsorted(stream.batch, np.arange(len(ends) + 1))
    progress = (np.arange(len(stream.batch)) - first[stream.batch] + 1) / np.diff(first)[stream.batch]
    start, end = cumulative[(ends - stream.minutes)[stream.batch]], cumulative[ends[stream.batch]]
    minutes: Floats = np.interp(start + progress * (end - start), cumulative, np.arange(len(cumulative)))
    return minutes


def next_batch_of_bin(stream: Stream) -> Ints:
    """Return, for each photo, the batch of the next photo of the same bin; the largest integer if there is none."""
    order = np.lexsort((stream.batch, stream.bin))
    next_batch = np.full(len(stream.batch), np.iinfo(np.int64).max)
    same_bin = stream.bin[order][:-1] == stream.bin[order][1:]
    next_batch[order[:-1][same_bin]] = stream.batch[order[1:][same_bin]]
    return next_batch


def window_membership(stream: Stream, next_batch: Ints, photo: Ints, length: int) -> np.ndarray:
    """Return which photos are in the window that ends with each batch, and the newest of their bin there.

    The result is 0 or 1, shape (batches, photos). Windows have `length` batches; `next_batch` is `next_batch_of_bin` of
    the stream; `photo` is the column of each of its photos.
    """
    ends = np.minimum(stream.batch + length, next_batch)
    leaves = ends < len(stream.minutes)
    changes = np.zeros((len(stream.minutes), photo.max() + 1), np.int8)
    changes[stream.batch, photo] += 1  # no index repeats: a batch adds, and drops, at most one photo of a bin
    changes[ends[leaves], photo[leaves]] -= 1
    return np.cumsum(changes, axis=0, dtype=np.int8, out=changes).astype(np.float32)


@dataclass
class WindowMeasures:
    """Distances and dispersions of all windows, shape (batches, signals, lengths); sizes, shape (batches, lengths)."""

    signals: list[Signal]
    distance: Floats
    dispersion: Floats
    photos: Floats
    valid: np.ndarray = field(repr=False)


def measure_windows(stream: Stream, photos: PhotoValues, reference: Reference) -> WindowMeasures:
    """Compare every window of a stream with the reference, and with the previous window."""
    n_batches, signals = len(stream.minutes), photos.signals
    shape = (n_batches, len(signals), len(WINDOW_LENGTHS))
    measures = WindowMeasures(
        signals,
        np.zeros(shape),
        np.full(shape, np.nan),
        np.ones((n_batches, len(WINDOW_LENGTHS))),
        np.zeros(shape[::2], bool),
    )
    cumulative = np.concatenate([[0], np.cumsum(np.bincount(stream.batch, minlength=n_batches))])
    ends, next_batch = np.arange(1, n_batches + 1), next_batch_of_bin(stream)
    rows, photo = np.unique(stream.row, return_inverse=True)
    features = [_features(signal, rows, photos, reference) for signal in signals]
    all_features = np.concatenate(features, axis=1).astype(np.float32)
    boundaries = np.cumsum([columns.shape[1] for columns in features])[:-1]

    def fits(length: int) -> np.ndarray:
        n_photos = cumulative[ends] - cumulative[np.maximum(ends - length, 0)]
        is_valid: np.ndarray = (ends >= length) & (n_photos <= MAX_WINDOW_PHOTOS)
        return is_valid

    for index, length in enumerate(WINDOW_LENGTHS):
        measures.valid[:, index] = fits(length)
        if not measures.valid[:, index].any():
            continue
        members = window_membership(stream, next_batch, photo, length)
        size = members.sum(axis=1).astype(float)
        measures.photos[:, index] = size
        with_previous = np.flatnonzero(fits(2 * length) & (2 * length <= WINDOW_LENGTHS[-1]))
        # Sums of 0 and 1 are exact in single precision, and those of the embedding are precise enough.
        means_by_signal = np.split((members @ all_features).astype(float) / size[:, None], boundaries, axis=1)
        for s, (signal, means) in enumerate(zip(signals, means_by_signal, strict=True)):
            squares = means
            if signal is Signal.EMBEDDING:
                squares = (members @ (features[s] ** 2).astype(np.float32)).astype(float) / size[:, None]
            measures.distance[:, s, index] = _distances(signal, means, reference)
            measures.dispersion[with_previous, s, index] = _dispersion(means, squares, size, with_previous, length)
    return measures


def _features(signal: Signal, rows: Ints, photos: PhotoValues, reference: Reference) -> Floats:
    """Return the features whose means determine a signal's distance, shape (rows, features).

    They are 0 or 1, except those of the embedding.
    """
    if signal is Signal.EMBEDDING:
        assert reference.embedding is not None
        shifted = photos.embeddings[rows] - np.array(reference.embedding.mean)
        projections: Floats = shifted @ np.array(reference.embedding.axes).T
        return projections
    if signal in CATEGORICAL_SIGNALS:
        return np.eye(len(CLASSES))[photos.classes[signal][rows]]
    return (photos.values[signal][rows, None] <= _edges(signal, reference)).astype(float)


def _edges(signal: Signal, reference: Reference) -> Floats:
    return np.array(reference.quantiles[signal])[QUANTILE_STEP // 2 :: QUANTILE_STEP]


def _distances(signal: Signal, means: Floats, reference: Reference) -> Floats:
    """Return the distances of windows with these means of the features, shape (windows,)."""
    if signal is Signal.EMBEDDING:
        return np.linalg.norm(means, axis=1)
    if signal in CATEGORICAL_SIGNALS:
        counts = np.array(reference.predicted if signal is Signal.PREDICTED else reference.labels)
        return jensen_shannon(means, counts)
    levels = levels_at(_edges(signal, reference), np.array(reference.quantiles[signal]))[1]
    distances: Floats = np.abs(means - levels).max(axis=1)
    return distances


def _dispersion(means: Floats, squares: Floats, size: Floats, batches: Ints, length: int) -> Floats:
    previous = batches - length
    n, m = size[batches], size[previous]
    shift = ((means[batches] - means[previous]) ** 2).sum(axis=1)
    share = (n / (n + m))[:, None]
    mean = share * means[batches] + (1 - share) * means[previous]
    square = share * squares[batches] + (1 - share) * squares[previous]
    variance = (square - mean**2).sum(axis=1) * (n + m) / (n + m - 1)
    dispersion: Floats = np.minimum(shift / np.maximum((1 / n + 1 / m) * variance, 1e-12), MAX_DISPERSION)
    return dispersion


class Thresholds:
    """The thresholds of monitor.drift.thresholds, for many sizes and levels at once."""

    def __init__(self, reference: Reference, counts: dict[Signal, tuple[int, ...]]) -> None:
        """Use `counts` instead of the reference's, whose thresholds would have to be simulated for every quarter."""
        self._reference_size, self._counts = effective_sample_size(reference), counts
        self._axes = len(reference.embedding.axes) if reference.embedding else 0

    def simulate(self) -> None:
        """Fill the cache of this process, so that its forks do not each simulate the thresholds of counts."""
        for counts in self._counts.values():
            _jensen_shannon_by_size(counts, self._reference_size)

    def threshold(self, signal: Signal, photos: Floats, level: float) -> Floats:
        """Return the thresholds of windows with these numbers of photos, at the level of one signal."""
        if signal in CATEGORICAL_SIGNALS:
            by_size = _jensen_shannon_by_size(self._counts[signal], self._reference_size)
            return by_size[photos.astype(int)] * threshold_growth(level)
        root = np.sqrt(self._reference_size * photos / (self._reference_size + photos))
        if signal is Signal.EMBEDDING:
            return _mean_shift(self._reference_size, self._axes, level) / root
        return _kolmogorov(level) / (root + 0.12 + 0.11 / root)


@lru_cache
def _jensen_shannon_by_size(counts: tuple[int, ...], reference_size: int) -> Floats:
    level = thresholds.MIN_SIMULATED_LEVEL
    sizes = range(1, MAX_WINDOW_PHOTOS + 1)
    simulated = [thresholds.jensen_shannon_threshold(counts, reference_size, size, level) for size in sizes]
    return np.array([np.inf, *simulated])


@lru_cache(maxsize=100_000)
def threshold_growth(level: float) -> float:
    """Return a categorical signal's threshold at a small level, relative to that at MIN_SIMULATED_LEVEL."""
    degrees = len(CLASSES) - 1
    return quantiles.chi_squared_quantile(level, degrees) / quantiles.chi_squared_quantile(
        thresholds.MIN_SIMULATED_LEVEL, degrees
    )


@lru_cache(maxsize=100_000)
def _kolmogorov(level: float) -> float:
    return quantiles.kolmogorov_quantile(level)


@lru_cache(maxsize=100_000)
def _mean_shift(reference_size: int, axes: int, level: float) -> float:
    """Return the threshold at an effective size of 1."""
    threshold = thresholds.mean_shift_threshold(reference_size, reference_size, axes, level)
    return threshold * float(np.sqrt(reference_size / 2))


def find_alarms(measures: WindowMeasures, minutes: Ints, limits: Thresholds, share: float = 1.0) -> list[RaisedAlarm]:
    """Return what monitor.drift.alarms.next_state raises, batch by batch, with a share of the budget."""
    signals, n_batches = measures.signals, len(minutes)
    levels = np.minimum(FALSE_ALARM_BUDGET * share * minutes / QUARTER_MINUTES, WINDOW_LEVEL)
    levels[:1] = WINDOW_LEVEL * share
    lengths = np.array(WINDOW_LENGTHS)
    longest = measures.valid.cumsum(axis=1).argmax(axis=1)
    candidates = _candidates(measures, levels, limits)
    mean = np.ones((len(signals), len(WINDOW_LENGTHS)))
    open_alarms: dict[int, RaisedAlarm] = {}
    first = np.zeros(len(signals), int)
    n_raised = [0] * len(signals)  # a stream lasts a quarter at most, so all alarms are recent
    alarms = []
    for batch in range(n_batches):
        scale = np.maximum.accumulate(np.maximum(mean, 1.0), axis=1)
        open_before = set(open_alarms)
        for s in np.flatnonzero(candidates[batch]).tolist():
            if s in open_alarms:
                continue
            level = levels[batch] * REPEAT_LEVEL_FACTOR ** min(n_raised[s], MAX_RECENT_ALARMS)
            limit = limits.threshold(
                signals[s],
                np.maximum(measures.photos[batch] / scale[s], 1),
                level / measures.valid[batch].sum() / len(signals),
            )
            hits = (measures.distance[batch, s] > limit) & measures.valid[batch] & (batch - lengths + 1 >= first[s])
            if signals[s] is Signal.EMBEDDING:
                hits &= measures.photos[batch] >= MIN_EMBEDDINGS
            if hits.any():
                open_alarms[s] = RaisedAlarm(signals[s], batch, WINDOW_LENGTHS[int(hits.argmax())])
                alarms.append(open_alarms[s])
                n_raised[s] += 1
        for s in open_before:
            index = min(WINDOW_LENGTHS.index(max(open_alarms[s].batches, MIN_CALM_BATCHES)), int(longest[batch]))
            first_batch = batch - WINDOW_LENGTHS[index] + 1
            if first_batch > open_alarms[s].batch:
                size = np.maximum(measures.photos[batch, [index]] / scale[s, index], 1)
                (limit,) = limits.threshold(signals[s], size, WINDOW_LEVEL / len(signals))
                if measures.distance[batch, s, index] <= limit:
                    del open_alarms[s]
                    first[s] = first_batch
        n_averaged = batch + 1 - 2 * lengths
        weight = np.maximum(1 / DISPERSION_MEMORY, 1 / np.maximum(n_averaged + DISPERSION_PRIOR + 1, 1))
        learns = ~np.isnan(measures.dispersion[batch]) & (n_averaged >= first[:, None])
        learns[list(open_before)] = False
        mean = np.where(learns, mean + weight * (np.nan_to_num(measures.dispersion[batch]) - mean), mean)
    return alarms


def _candidates(measures: WindowMeasures, levels: Floats, limits: Thresholds) -> np.ndarray:
    """Return which signals exceed a threshold if their dispersion is 1, shape (batches, signals)."""
    candidates = np.zeros(measures.distance.shape[:2], bool)
    test_levels = levels / np.maximum(measures.valid.sum(axis=1), 1) / len(measures.signals)
    for level in np.unique(test_levels):
        batches = np.flatnonzero(test_levels == level)
        for s, signal in enumerate(measures.signals):
            limit = limits.threshold(signal, measures.photos[batches], float(level))
            exceeds = (measures.distance[batches, s] > limit) & measures.valid[batches]
            candidates[batches, s] = exceeds.any(axis=1)
    return candidates
