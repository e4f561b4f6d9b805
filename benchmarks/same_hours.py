"""Simulate quarters of a monitor whose alarms compare with the same hours before.

They are judged by monitor.drift.alarms itself, batch by batch, which is fast enough at low rates of photos only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from unittest.mock import patch

import numpy as np

from benchmarks.quarters import (
    CATEGORICAL_SIGNALS,
    QUARTER_MINUTES,
    PhotoValues,
    RaisedAlarm,
    Stream,
    photo_minutes,
    threshold_growth,
)
from binwatch.bundle import EmbeddingReference, Reference
from binwatch.reference import Signal
from binwatch.settings import DriftReference
from monitor.drift import thresholds
from monitor.drift.alarms import WINDOW_LENGTHS, AlarmState, BatchWindow, batch_level, next_state
from monitor.drift.same_hours import MAX_PHOTOS_PER_WEEK, WEEK, WEEKS, make_same_hours_reference
from monitor.drift.windows import MAX_WINDOW_PHOTOS, Floats, Ints, PhotoSample

LEAD_MINUTES = int((WEEKS + 1) * WEEK.total_seconds() // 60)
"""Minutes before the quarter, so that batches of its first day have all WEEKS to compare with."""
TOTAL_MINUTES = LEAD_MINUTES + QUARTER_MINUTES
"""Minutes to simulate."""
START = datetime(2026, 1, 5, tzinfo=UTC)


def find_alarms(
    stream: Stream, photos: PhotoValues, reference: Reference, counts: tuple[int, ...], seed: int
) -> list[RaisedAlarm]:
    """Return the alarms that a stream raises after LEAD_MINUTES.

    `counts` replace those of every reference, whose thresholds would take hours to simulate.
    """
    assert reference.embedding is not None
    axes, mean = np.array(reference.embedding.axes), np.array(reference.embedding.mean)
    projected = PhotoValues(photos.values, photos.classes, (photos.embeddings - mean) @ axes.T)
    identity = EmbeddingReference(mean=[0.0] * len(axes), axes=np.eye(len(axes)).tolist())
    training = reference.model_copy(update={"embedding": identity})
    batches = _batches(stream, projected, training, np.random.default_rng(seed))
    with patch.object(thresholds, "jensen_shannon_threshold", partial(_cached_threshold, counts)):
        return list(_raised_alarms(batches))


def _raised_alarms(batches: Iterable[tuple[list[BatchWindow], int, int]]) -> Iterator[RaisedAlarm]:
    state = AlarmState(reference=DriftReference.SAME_HOURS)
    for batch, (windows, minutes, now) in enumerate(batches):
        open_before = set(state.alarms)
        level = batch_level(timedelta(minutes=minutes) if batch else None)
        state = next_state(state, windows, None, level, START + timedelta(minutes=now))
        for signal, alarm in state.alarms.items():
            if signal not in open_before and now > LEAD_MINUTES:
                yield RaisedAlarm(signal, batch, alarm.batches)


def _batches(
    stream: Stream, photos: PhotoValues, training: Reference, random: np.random.Generator
) -> Iterator[tuple[list[BatchWindow], int, int]]:
    """Yield each batch's windows, its minutes since the previous batch, and the minute when it was closed."""
    ends, minute_of_photo = np.cumsum(stream.minutes), photo_minutes(stream)
    first = np.searchsorted(stream.batch, np.arange(len(ends) + 1))
    for batch, now in enumerate(ends.tolist()):
        windows = []
        for length in WINDOW_LENGTHS:
            if length > batch + 1 or first[batch + 1] - first[batch + 1 - length] > MAX_WINDOW_PHOTOS:
                continue
            start = ends[batch - length] if length <= batch else 0
            rows = _newest_rows(stream, first[batch + 1 - length], first[batch + 1])
            previous = _make_sample(photos, stream.row[_same_hours(stream, minute_of_photo, start, now, random)])
            windows.append(
                BatchWindow(
                    length,
                    batch + 2 - length,
                    START + timedelta(minutes=int(start)),
                    _make_sample(photos, rows),
                    previous,
                    make_same_hours_reference(previous, training),
                )
            )
        yield windows, int(stream.minutes[batch]), now


def _newest_rows(stream: Stream, first: int, end: int) -> Ints:
    """Return the rows of the newest photo of each bin."""
    bins = stream.bin[first:end][::-1]
    rows: Ints = stream.row[first:end][::-1][np.unique(bins, return_index=True)[1]]
    return rows


def _same_hours(stream: Stream, minutes: Floats, start: float, end: float, random: np.random.Generator) -> Ints:
    """Return positions in the stream of photos of different bins, at most MAX_PHOTOS_PER_WEEK of each week."""
    week_minutes = WEEK.total_seconds() / 60
    positions = []
    for week in range(1, WEEKS + 1):
        edges = [start - week * week_minutes, end - week * week_minutes]
        first, last = np.searchsorted(minutes, edges, side="right")
        positions.append(first + random.permutation(last - first)[:MAX_PHOTOS_PER_WEEK])
    drawn = random.permutation(np.concatenate(positions))
    one_per_bin: Ints = drawn[np.unique(stream.bin[drawn], return_index=True)[1]]
    return one_per_bin


def _make_sample(photos: PhotoValues, rows: Ints) -> PhotoSample:
    values = {signal: signal_values[rows] for signal, signal_values in photos.values.items()}
    predicted, expected = (photos.classes[signal][rows] for signal in CATEGORICAL_SIGNALS)
    return PhotoSample(predicted, values.pop(Signal.CONFIDENCE), expected, 0, values, photos.embeddings[rows])


def _cached_threshold(
    counts: tuple[int, ...], _: tuple[int, ...], reference_size: int, size: int, level: float
) -> float:
    simulated = _simulated_threshold(counts, thresholds.round_down(reference_size), thresholds.round_down(size))
    return simulated * threshold_growth(level)


_jensen_shannon_threshold: Callable[[tuple[int, ...], int, int, float], float] = thresholds.jensen_shannon_threshold
"""The original, which `find_alarms` replaces in its module."""


@cache
def _simulated_threshold(counts: tuple[int, ...], reference_size: int, size: int) -> float:
    return _jensen_shannon_threshold(counts, reference_size, size, thresholds.MIN_SIMULATED_LEVEL)
