"""Quarters of a monitor's life, simulated: when drift alarms are raised, without drift and after a disturbance.

The rule is monitor.drift.alarms', computed for all batches of a quarter at once: `python -m benchmarks.drift` needs
hundreds of thousands of them. tests/benchmarks/test_quarters.py compares the two. Distribution functions are compared
at every fourth quantile of the reference here, which makes a distance smaller by at most 1/100.

A warehouse has as many bins as there are bin groups in the pool. Photos are taken along walks of WALK neighbouring bins
in the order of the photos' keys, so photos of a batch resemble each other as they do in the data; a bin shows one of
its group's photos each time. At night a tenth as many photos come as by day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from binwatch.bundle import Reference
from binwatch.counts import CLASSES
from binwatch.reference import Signal, effective_sample_size
from monitor import quantiles
from monitor.drift import thresholds
from monitor.drift.alarms import BUDGET, CALM, COUNTED, MEMORY, NORMAL, PRIOR, QUARTER, REPEATED, SPANS
from monitor.drift.batches import BATCH, LEAST
from monitor.drift.dispersion import EACH, MOST
from monitor.drift.distances import jensen_shannon, levels_at
from monitor.drift.judge import LEVEL, MIN_PHOTOS
from monitor.drift.windows import SAMPLE, Floats, Ints

MINUTES = int(QUARTER.total_seconds() // 60)
WALK = 10
NIGHT = 0.1
DAY = (6, 22)
MINUTES_A_DAY = 24 * 60
CATEGORIES = (Signal.PREDICTED, Signal.EXPECTED)


@dataclass(frozen=True)
class PhotoValues:
    """What is known of n photos, one row each."""

    values: dict[Signal, Floats]
    """Of continuous signals, shape (n,)."""
    classes: dict[Signal, Ints]
    """Of CATEGORIES, shape (n,)."""
    embeddings: Floats

    @property
    def signals(self) -> list[Signal]:
        """Those that are watched."""
        return [*self.values, *self.classes, Signal.EMBEDDING]


def joined(some: PhotoValues, others: PhotoValues) -> PhotoValues:
    """The rows of both, one after the other."""
    return PhotoValues(
        {signal: np.concatenate([some.values[signal], others.values[signal]]) for signal in some.values},
        {signal: np.concatenate([some.classes[signal], others.classes[signal]]) for signal in some.classes},
        np.concatenate([some.embeddings, others.embeddings]),
    )


@dataclass(frozen=True)
class Stream:
    """Batches of photos: `batch[i]` ascending, `row[i]` among PhotoValues, `group[i]` the bin."""

    batch: Ints
    row: Ints
    group: Ints
    minutes: Ints
    """Of each batch, since the one before."""


@dataclass
class Raised:
    """One alarm: the batch that raised it, and how long the window was."""

    signal: Signal
    batch: int
    batches: int


def weights(minutes: int) -> Floats:
    """How many photos come in each minute, beside an average one."""
    found = np.where(is_night(np.arange(minutes) // 60 % 24), NIGHT, 1.0)
    return found / found.mean()


def closings(per_hour: float, minutes: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Photos that came, and minutes since the batch before, of each batch: at the earliest LEAST after that."""
    came = np.cumsum(random.poisson(per_hour / 60 * weights(minutes)))
    least = int(LEAST.total_seconds() // 60)
    found, last, before = [], 0, -least
    while (at := max(int(np.searchsorted(came, last + MIN_PHOTOS)), before + least)) < minutes:
        found.append((came[at] - last, at - before))
        last, before = int(came[at]), at
    photos, since = np.array(found or np.empty((0, 2), int)).T
    return photos, since


def is_night(hours: Ints) -> np.ndarray:
    """By the hour of the day."""
    return (hours < DAY[0]) | (hours >= DAY[1])


def stream(
    photos: Ints,
    minutes: Ints,
    groups: Ints,
    rows: Ints,
    random: np.random.Generator,
    walk: int = WALK,
    a_day: float = 1.0,
) -> Stream:
    """Batches of so many photos, of bins whose `groups`, one for each of `rows`, are numbered in the order of keys.

    Photos of a day are of one stretch of the keys, which is this share of all.
    """
    bins, size = np.unique(groups, return_counts=True)
    stretch = int(a_day * len(bins))
    days = np.cumsum(minutes) // MINUTES_A_DAY
    begins = random.integers(len(bins), size=days[-1] + 1)[days] if a_day < 1 else np.zeros(len(days), int)
    by_bin = rows[np.argsort(groups, kind="stable")]
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    found = []
    for came in np.unique(photos):
        batches = np.flatnonzero(photos == came)
        number = min(int(came), BATCH, stretch)
        # Of a batch that is drawn from many photos, neighbours are as rare as they are among those.
        length = max(walk * number // int(came), 1)
        for part in np.array_split(batches, max(1, len(batches) // 2000)):
            walks = np.argsort(random.random((len(part), stretch // length)), axis=1)
            chosen = (walks[:, :, None] * length + np.arange(length)).reshape(len(part), -1)[:, :number]
            chosen = (chosen + begins[part, None]) % len(bins)
            found.append(np.stack([np.repeat(part, chosen.shape[1]), chosen.ravel()]))
    batch, at = np.concatenate(found, axis=1)
    order = np.argsort(batch, kind="stable")
    batch, at = batch[order], at[order]
    return Stream(batch, by_bin[start[at] + (random.random(len(at)) * size[at]).astype(int)], at, minutes)


def times(of: Stream) -> Floats:
    """The minute of each photo: those of a batch come as `weights` says."""
    ends = np.cumsum(of.minutes)
    passed = np.concatenate([[0.0], np.cumsum(weights(int(ends[-1])))])
    starts = np.searchsorted(of.batch, np.arange(len(ends) + 1))
    place = (np.arange(len(of.batch)) - starts[of.batch] + 1) / np.diff(starts)[of.batch]
    until, since = passed[ends[of.batch]], passed[(ends - of.minutes)[of.batch]]
    found: Floats = np.interp(since + place * (until - since), passed, np.arange(len(passed)))
    return found


def newer_photos(of: Stream) -> Ints:
    """The batch of the next photo of the same bin, of each photo; the largest integer if there is none."""
    order = np.lexsort((of.batch, of.group))
    found = np.full(len(of.batch), np.iinfo(np.int64).max)
    same = of.group[order][:-1] == of.group[order][1:]
    found[order[:-1][same]] = of.batch[order[1:][same]]
    return found


def windows(of: Stream, newer: Ints, photo: Ints, span: int) -> np.ndarray:
    """Whether each of the photos is in the last `span` batches, and the newest of its bin there, as of every batch.

    Shape (batches, photos), 0 or 1. `newer` is that of the stream; `photo` numbers its photos.
    """
    ends = np.minimum(of.batch + span, newer)
    leaves = ends < len(of.minutes)
    found = np.zeros((len(of.minutes), photo.max() + 1), np.int8)
    found[of.batch, photo] += 1  # a batch has one photo of each bin, and one leaves in it
    found[ends[leaves], photo[leaves]] -= 1
    return np.cumsum(found, axis=0, dtype=np.int8, out=found).astype(np.float32)


@dataclass
class Judged:
    """Distances and dispersions of every window, shape (batches, signals, spans); sizes, shape (batches, spans)."""

    signals: list[Signal]
    distance: Floats
    dispersion: Floats
    photos: Floats
    valid: np.ndarray = field(repr=False)


def judged(of: Stream, photos: PhotoValues, reference: Reference) -> Judged:
    """Every window of a stream beside the reference, and beside the window before."""
    number, signals = len(of.minutes), photos.signals
    shape = (number, len(signals), len(SPANS))
    found = Judged(
        signals, np.zeros(shape), np.full(shape, np.nan), np.ones((number, len(SPANS))), np.zeros(shape[::2], bool)
    )
    taken = np.concatenate([[0], np.cumsum(np.bincount(of.batch, minlength=number))])
    ends, newer = np.arange(1, number + 1), newer_photos(of)
    rows, photo = np.unique(of.row, return_inverse=True)
    features = [_features(signal, rows, photos, reference) for signal in signals]
    every = np.concatenate(features, axis=1).astype(np.float32)
    ends_at = np.cumsum([one.shape[1] for one in features])[:-1]
    for index, span in enumerate(SPANS):
        found.valid[:, index] = (ends >= span) & (taken[ends] - taken[np.maximum(ends - span, 0)] <= SAMPLE)
        if not found.valid[:, index].any():
            continue
        within = windows(of, newer, photo, span)
        size = within.sum(axis=1).astype(float)
        found.photos[:, index] = size
        both = np.flatnonzero((ends >= 2 * span) & (taken[ends] - taken[np.maximum(ends - 2 * span, 0)] <= SAMPLE))
        both = both if 2 * span <= SPANS[-1] else both[:0]
        # Sums of 0 and 1 are exact in single precision, and those of the embedding exact enough.
        means_of = np.split((within @ every).astype(float) / size[:, None], ends_at, axis=1)
        for at, (signal, means) in enumerate(zip(signals, means_of, strict=True)):
            squares = means
            if signal is Signal.EMBEDDING:
                squares = (within @ (features[at] ** 2).astype(np.float32)).astype(float) / size[:, None]
            found.distance[:, at, index] = _distances(signal, means, reference)
            found.dispersion[both, at, index] = _dispersion(means, squares, size, both, span)
    return found


def _features(signal: Signal, rows: Ints, photos: PhotoValues, reference: Reference) -> Floats:
    """What a signal's distance follows from the means of, shape (rows, features): 0 or 1, but of the embedding."""
    if signal is Signal.EMBEDDING:
        assert reference.embedding is not None
        along: Floats = (photos.embeddings[rows] - np.array(reference.embedding.mean)) @ np.array(
            reference.embedding.axes
        ).T
        return along
    if signal in CATEGORIES:
        return np.eye(len(CLASSES))[photos.classes[signal][rows]]
    return (photos.values[signal][rows, None] <= _edges(signal, reference)).astype(float)


def _edges(signal: Signal, reference: Reference) -> Floats:
    return np.array(reference.quantiles[signal])[EACH // 2 :: EACH]


def _distances(signal: Signal, means: Floats, reference: Reference) -> Floats:
    """Of windows with these means of the features, shape (windows,)."""
    if signal is Signal.EMBEDDING:
        return np.linalg.norm(means, axis=1)
    if signal in CATEGORIES:
        counts = np.array(reference.predicted if signal is Signal.PREDICTED else reference.labels)
        return jensen_shannon(means, counts)
    levels = levels_at(_edges(signal, reference), np.array(reference.quantiles[signal]))[1]
    found: Floats = np.abs(means - levels).max(axis=1)
    return found


def _dispersion(means: Floats, squares: Floats, size: Floats, now: Ints, span: int) -> Floats:
    n, m = size[now], size[now - span]
    shift = ((means[now] - means[now - span]) ** 2).sum(axis=1)
    share = (n / (n + m))[:, None]
    mean = share * means[now] + (1 - share) * means[now - span]
    square = share * squares[now] + (1 - share) * squares[now - span]
    variance = (square - mean**2).sum(axis=1) * (n + m) / (n + m - 1)
    found: Floats = np.minimum(shift / np.maximum((1 / n + 1 / m) * variance, 1e-12), MOST)
    return found


class Thresholds:
    """Thresholds of monitor.drift.thresholds, for many sizes and levels at once."""

    def __init__(self, reference: Reference, signals: Sequence[Signal], counts: dict[Signal, tuple[int, ...]]) -> None:
        """`counts` stand for the reference's own, whose thresholds would have to be simulated anew in each quarter."""
        self._worth, self._signals, self._counts = effective_sample_size(reference), signals, counts
        self._axes = len(reference.embedding.axes) if reference.embedding else 0

    def of(self, signal: Signal, photos: Floats, level: float) -> Floats:
        """Of windows of so many photos, at the level of one signal."""
        effective = self._worth * photos / (self._worth + photos)
        if signal in CATEGORIES:
            found: Floats = _of_sizes(self._counts[signal], self._worth)[photos.astype(int)] * grown(level)
        elif signal is Signal.EMBEDDING:
            found = _mean_shift(self._worth, self._axes, level) / np.sqrt(effective)
        else:
            root = np.sqrt(effective)
            found = _kolmogorov(level) / (root + 0.12 + 0.11 / root)
        return found


@lru_cache
def _of_sizes(counts: tuple[int, ...], worth: int) -> Floats:
    sizes = np.arange(1, SAMPLE + 1)
    simulated = [thresholds.of_categories(counts, worth, int(size), thresholds.SIMULATED) for size in sizes]
    return np.array([np.inf, *simulated])


@lru_cache(maxsize=100_000)
def grown(level: float) -> float:
    """Threshold of categories at a small level, in units of that at SIMULATED."""
    freedom = len(CLASSES) - 1
    return quantiles.chi_squared(level, freedom) / quantiles.chi_squared(thresholds.SIMULATED, freedom)


@lru_cache(maxsize=100_000)
def _kolmogorov(level: float) -> float:
    return quantiles.kolmogorov(level)


@lru_cache(maxsize=100_000)
def _mean_shift(worth: int, axes: int, level: float) -> float:
    return thresholds.of_mean_shift(worth, worth, axes, level) * float(np.sqrt(worth / 2))


def alarms(of: Judged, minutes: Ints, limits: Thresholds, share: float = 1.0) -> list[Raised]:
    """What monitor.drift.alarms.next_state raises, batch by batch, with a share of the budget."""
    signals, number = of.signals, len(minutes)
    levels = np.minimum(BUDGET * share * minutes / MINUTES, LEVEL)
    levels[:1] = LEVEL * share
    spans = np.array(SPANS)
    last = of.valid.cumsum(axis=1).argmax(axis=1)
    candidates = _candidates(of, levels, limits)
    mean = np.ones((len(signals), len(SPANS)))
    raised: dict[int, Raised] = {}
    first = np.zeros(len(signals), int)
    times = [0] * len(signals)  # alarms of each signal: a stream is a quarter long at most
    found = []
    for batch in range(number):
        scale = np.maximum.accumulate(np.maximum(mean, 1.0), axis=1)
        before = set(raised)
        for at in np.flatnonzero(candidates[batch]).tolist():
            if at not in raised:
                limit = limits.of(
                    signals[at],
                    np.maximum(of.photos[batch] / scale[at], 1),
                    levels[batch] * REPEATED ** min(times[at], COUNTED) / of.valid[batch].sum() / len(signals),
                )
                hits = (of.distance[batch, at] > limit) & of.valid[batch] & (batch - spans + 1 >= first[at])
                if signals[at] is Signal.EMBEDDING:
                    hits &= of.photos[batch] >= NORMAL
                if hits.any():
                    raised[at] = Raised(signals[at], batch, SPANS[int(hits.argmax())])
                    found.append(raised[at])
                    times[at] += 1
        for at in before:
            index = min(SPANS.index(max(raised[at].batches, CALM)), int(last[batch]))
            begins = batch - SPANS[index] + 1
            if begins > raised[at].batch:
                limit = limits.of(
                    signals[at], np.maximum(of.photos[batch, [index]] / scale[at, index], 1), LEVEL / len(signals)
                )
                if of.distance[batch, at, index] <= limit[0]:
                    del raised[at]
                    first[at] = begins
        known = batch + 1 - 2 * spans
        weight = np.maximum(1 / MEMORY, 1 / np.maximum(known + PRIOR + 1, 1))
        learns = ~np.isnan(of.dispersion[batch]) & (known >= first[:, None])
        learns[list(before)] = False
        mean = np.where(learns, mean + weight * (np.nan_to_num(of.dispersion[batch]) - mean), mean)
    return found


def _candidates(of: Judged, levels: Floats, limits: Thresholds) -> np.ndarray:
    """Batches and signals that are beyond a threshold unless photos resemble each other, shape (batches, signals)."""
    found = np.zeros(of.distance.shape[:2], bool)
    share = levels / np.maximum(of.valid.sum(axis=1), 1) / len(of.signals)
    for level in np.unique(share):
        at = np.flatnonzero(share == level)
        for index, signal in enumerate(of.signals):
            limit = limits.of(signal, of.photos[at], float(level))
            found[at, index] = ((of.distance[at, index] > limit) & of.valid[at]).any(axis=1)
    return found
