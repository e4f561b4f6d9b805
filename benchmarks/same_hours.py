"""Quarters of a monitor whose alarms compare with the same hours before: monitor.drift.alarms itself, batch by batch.

The sizes of a simulated quarter are small enough for that at few photos an hour only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from unittest.mock import patch

import numpy as np

from benchmarks.quarters import CATEGORIES, MINUTES, PhotoValues, Raised, Stream, grown, times
from binwatch.bundle import EmbeddingReference, Reference
from binwatch.reference import Signal
from binwatch.settings import DriftReference
from monitor.drift import thresholds
from monitor.drift.alarms import SPANS, AlarmState, BatchWindow, level_of, next_state
from monitor.drift.same_hours import A_WEEK, WEEK, WEEKS, make
from monitor.drift.windows import SAMPLE, Floats, Ints, PhotoSample

LEAD = int((WEEKS + 1) * WEEK.total_seconds() // 60)
"""Minutes before the quarter: alarms of its first day have four weeks to compare with, of which one was a test."""
START = datetime(2026, 1, 5, tzinfo=UTC)


def alarms(of: Stream, photos: PhotoValues, reference: Reference, counts: tuple[int, ...], seed: int) -> list[Raised]:
    """What a quarter raises after LEAD; `of` is that much longer. `counts` stand for those of each reference.

    Simulating the thresholds of each anew would take hours.
    """
    assert reference.embedding is not None
    axes, mean = np.array(reference.embedding.axes), np.array(reference.embedding.mean)
    along = PhotoValues(photos.values, photos.classes, (photos.embeddings - mean) @ axes.T)
    turned = EmbeddingReference(mean=[0.0] * len(axes), axes=np.eye(len(axes)).tolist())
    training = reference.model_copy(update={"embedding": turned})
    batches = _batches(of, along, training, np.random.default_rng(seed))
    with patch.object(thresholds, "of_categories", partial(_of_categories, counts)):
        return list(_raised(batches))


def _raised(batches: Iterable[tuple[list[BatchWindow], int, int]]) -> Iterator[Raised]:
    state = AlarmState(reference=DriftReference.SAME_HOURS)
    for number, (windows, minutes, now) in enumerate(batches):
        before = set(state.alarms)
        level = level_of(timedelta(minutes=minutes) if number else None)
        state = next_state(state, windows, None, level, START + timedelta(minutes=now))
        for signal, alarm in state.alarms.items():
            if signal not in before and now > LEAD:
                yield Raised(signal, number, alarm.batches)


def _batches(
    of: Stream, photos: PhotoValues, training: Reference, random: np.random.Generator
) -> Iterator[tuple[list[BatchWindow], int, int]]:
    """Windows of each batch, its minutes, and when it was closed."""
    ends, at = np.cumsum(of.minutes), times(of)
    starts = np.searchsorted(of.batch, np.arange(len(ends) + 1))
    for number, now in enumerate(ends.tolist()):
        windows = []
        for span in SPANS:
            if span > number + 1 or starts[number + 1] - starts[number + 1 - span] > SAMPLE:
                continue
            began = ends[number - span] if span <= number else 0
            seen = _newest(of, starts[number + 1 - span], starts[number + 1])
            before = _sample(photos, of.row[_same_hours(of, at, began, now, random)])
            since = START + timedelta(minutes=int(began))
            reference = make(before, training)
            windows.append(BatchWindow(span, number + 2 - span, since, _sample(photos, seen), before, reference))
        yield windows, int(of.minutes[number]), now


def _newest(of: Stream, first: int, end: int) -> Ints:
    groups = of.group[first:end][::-1]
    rows: Ints = of.row[first:end][::-1][np.unique(groups, return_index=True)[1]]
    return rows


def _same_hours(of: Stream, at: Floats, began: float, ended: float, random: np.random.Generator) -> Ints:
    """Places in the stream: at most A_WEEK of a week, and one of each bin."""
    week = WEEK.total_seconds() / 60
    found = []
    for weeks in range(1, WEEKS + 1):
        first, end = np.searchsorted(at, [began - weeks * week, ended - weeks * week], side="right")
        found.append(first + random.permutation(end - first)[:A_WEEK])
    drawn = random.permutation(np.concatenate(found))
    places: Ints = drawn[np.unique(of.group[drawn], return_index=True)[1]]
    return places


def _sample(photos: PhotoValues, rows: Ints) -> PhotoSample:
    values = {signal: found[rows] for signal, found in photos.values.items()}
    predicted, expected = (photos.classes[signal][rows] for signal in CATEGORIES)
    return PhotoSample(predicted, values.pop(Signal.CONFIDENCE), expected, 0, values, photos.embeddings[rows])


def _of_categories(counts: tuple[int, ...], _: tuple[int, ...], worth: int, photos: int, level: float) -> float:
    return _simulated(counts, thresholds.coarse(worth), thresholds.coarse(photos)) * grown(level)


_real: Callable[[tuple[int, ...], int, int, float], float] = thresholds.of_categories


@cache
def _simulated(counts: tuple[int, ...], worth: int, photos: int) -> float:
    return _real(counts, worth, photos, thresholds.SIMULATED)


def length() -> int:
    """Minutes to simulate."""
    return LEAD + MINUTES
