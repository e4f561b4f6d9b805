"""Simulated quarters follow the rule of monitor.drift.alarms, batch by batch."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from benchmarks import quarters, same_hours
from binwatch.reference import ReferenceData, Signal, make_reference
from monitor.drift.alarms import WINDOW_LENGTHS, AlarmState, BatchWindow, batch_level, next_state
from monitor.drift.batches import MIN_BATCH_INTERVAL
from monitor.drift.windows import PhotoSample

BINS, BATCHES = 2000, 40
MINUTES = 30


def _observed(number: int, seed: int) -> ReferenceData:
    random = np.random.default_rng(seed)
    return ReferenceData(
        random.dirichlet(np.ones(7), number),
        random.integers(0, 7, number),
        random.normal(size=(number, 4)),
        {Signal.BRIGHTNESS: random.normal(0.4, 0.1, number).round(5)},
    )


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_alarms_are_those_of_the_monitor(share: float) -> None:
    reference = make_reference(_observed(600, 0)).model_copy(update={"predicted": [], "labels": []})
    seen = _observed(2 * BINS, 1)
    seen.properties[Signal.BRIGHTNESS][BINS:] += 0.05
    confidence = np.array([float(f"{value:.6g}") for value in seen.probabilities.max(axis=1)])
    values = dict(seen.properties) | {Signal.CONFIDENCE: confidence}
    photos = quarters.PhotoValues(values, {}, seen.embeddings)
    random = np.random.default_rng(2)
    minutes = np.full(BATCHES, MINUTES)
    stream = quarters.make_stream(np.full(BATCHES, 50), minutes, np.arange(BINS), np.arange(BINS), random)
    changed = stream.batch >= BATCHES // 2
    stream.row[changed] += BINS
    limits = quarters.Thresholds(reference, {})
    found = quarters.find_alarms(quarters.measure_windows(stream, photos, reference), minutes, limits, share)
    state = AlarmState()
    raised: dict[tuple[Signal, int, int], None] = {}
    for number in range(1, BATCHES + 1):
        state = next_state(
            state, _windows(stream, number, values, photos), reference, _level(number, share), _at(number)
        )
        for signal, alarm in state.alarms.items():
            raised.setdefault((signal, alarm.batch - 1, alarm.batches))
    assert list(raised) == [(one.signal, one.batch, one.batches) for one in found]
    assert [one.signal for one in found] == [Signal.BRIGHTNESS]


def _at(number: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + number * timedelta(minutes=MINUTES)


def _level(number: int, share: float) -> float:
    return batch_level(None if number == 1 else timedelta(minutes=MINUTES), share)


def _windows(
    stream: quarters.Stream, number: int, values: dict[Signal, np.ndarray], photos: quarters.PhotoValues
) -> list[BatchWindow]:
    def sample(first: int, end: int) -> PhotoSample:
        at = np.flatnonzero((stream.batch >= first) & (stream.batch < end))
        newest = {int(stream.bin[one]): int(stream.row[one]) for one in at}
        rows = np.array(list(newest.values()))
        nothing = np.zeros(len(rows), int)
        return PhotoSample(
            nothing,
            values[Signal.CONFIDENCE][rows],
            nothing[:0],
            0,
            {Signal.BRIGHTNESS: values[Signal.BRIGHTNESS][rows]},
            photos.embeddings[rows],
        )

    found = []
    for span in WINDOW_LENGTHS:
        if span <= number:
            pairs = 2 * span <= min(number, WINDOW_LENGTHS[-1])
            before = sample(number - 2 * span, number - span) if pairs else None
            found.append(
                BatchWindow(span, number - span + 1, _at(number - span), sample(number - span, number), before)
            )
    return found


def test_a_batch_lasts_a_while_and_a_days_photos_are_of_one_stretch() -> None:
    random = np.random.default_rng(3)
    sizes, minutes = quarters.batch_sizes_and_intervals(5000, 2 * quarters.MINUTES_PER_DAY, random)
    assert minutes[1:].min() == MIN_BATCH_INTERVAL.total_seconds() // 60
    stream = quarters.make_stream(sizes, minutes, np.arange(1000), np.arange(1000), random, share_per_day=0.2)
    days = np.cumsum(minutes)[stream.batch] // quarters.MINUTES_PER_DAY
    found = [np.unique(stream.bin[days == day]) for day in (0, 1)]
    assert [len(bins) for bins in found] == [200, 200]
    assert not np.array_equal(*found)


def test_by_the_same_hours_nights_are_no_drift_and_a_change_is(monkeypatch: pytest.MonkeyPatch) -> None:
    week = 7 * quarters.MINUTES_PER_DAY
    monkeypatch.setattr(same_hours, "LEAD_MINUTES", 3 * week)
    reference, seen = make_reference(_observed(600, 0)), _observed(BINS, 1)
    values = dict(seen.properties) | {Signal.CONFIDENCE: seen.probabilities.max(axis=1)}
    classes = {Signal.PREDICTED: seen.probabilities.argmax(axis=1), Signal.EXPECTED: seen.labels}
    light = quarters.PhotoValues(values, classes, seen.embeddings)
    dim = replace(light, values=values | {Signal.BRIGHTNESS: values[Signal.BRIGHTNESS] - 0.2})
    random = np.random.default_rng(4)
    sizes, minutes = quarters.batch_sizes_and_intervals(5, 4 * week, random)
    stream = quarters.make_stream(sizes, minutes, np.arange(BINS), np.arange(BINS), random)
    at = quarters.photo_minutes(stream)
    stream.row[quarters.is_night(at // 60 % 24)] += BINS
    photos = quarters.concatenate(light, dim)
    assert same_hours.find_alarms(stream, photos, reference, tuple(reference.labels), 0) == []
    stream.row[at > 3.5 * week] = stream.row[at > 3.5 * week] % BINS + BINS  # from now on, days are as dark as nights
    (raised,) = same_hours.find_alarms(stream, photos, reference, tuple(reference.labels), 0)
    assert raised.signal is Signal.BRIGHTNESS
    assert np.cumsum(minutes)[raised.batch] > 3.5 * week
