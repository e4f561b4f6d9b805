"""Simulated quarters raise the same alarms as monitor.drift.alarms, batch by batch."""

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


def _observed(photos: int, seed: int) -> ReferenceData:
    random = np.random.default_rng(seed)
    return ReferenceData(
        random.dirichlet(np.ones(7), photos),
        random.integers(0, 7, photos),
        random.normal(size=(photos, 4)),
        {Signal.BRIGHTNESS: random.normal(0.4, 0.1, photos).round(5)},
    )


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_simulated_alarms_match_the_monitor(share: float) -> None:
    reference = make_reference(_observed(600, 0)).model_copy(update={"predicted": [], "labels": []})
    observed = _observed(2 * BINS, 1)
    observed.properties[Signal.BRIGHTNESS][BINS:] += 0.05
    confidence = np.array([float(f"{value:.6g}") for value in observed.probabilities.max(axis=1)])
    values = dict(observed.properties) | {Signal.CONFIDENCE: confidence}
    photos = quarters.PhotoValues(values, {}, observed.embeddings)
    random = np.random.default_rng(2)
    minutes = np.full(BATCHES, MINUTES)
    stream = quarters.make_stream(np.full(BATCHES, 50), minutes, np.arange(BINS), np.arange(BINS), random)
    changed = stream.batch >= BATCHES // 2
    stream.row[changed] += BINS
    limits = quarters.Thresholds(reference, {})
    alarms = quarters.find_alarms(quarters.measure_windows(stream, photos, reference), minutes, limits, share)
    state = AlarmState()
    raised: dict[tuple[Signal, int, int], None] = {}
    for number in range(1, BATCHES + 1):
        state = next_state(
            state, _windows(stream, number, values, photos), reference, _level(number, share), _at(number)
        )
        for signal, alarm in state.alarms.items():
            raised.setdefault((signal, alarm.batch - 1, alarm.batches))
    assert list(raised) == [(item.signal, item.batch, item.batches) for item in alarms]
    assert [item.signal for item in alarms] == [Signal.BRIGHTNESS]


def _at(number: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + number * timedelta(minutes=MINUTES)


def _level(number: int, share: float) -> float:
    return batch_level(None if number == 1 else timedelta(minutes=MINUTES), share)


def _windows(
    stream: quarters.Stream, number: int, values: dict[Signal, np.ndarray], photos: quarters.PhotoValues
) -> list[BatchWindow]:
    def sample(first: int, end: int) -> PhotoSample:
        indexes = np.flatnonzero((stream.batch >= first) & (stream.batch < end))
        newest = {int(stream.bin[index]): int(stream.row[index]) for index in indexes}
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

    windows = []
    for span in WINDOW_LENGTHS:
        if span <= number:
            pairs = 2 * span <= min(number, WINDOW_LENGTHS[-1])
            before = sample(number - 2 * span, number - span) if pairs else None
            windows.append(
                BatchWindow(span, number - span + 1, _at(number - span), sample(number - span, number), before)
            )
    return windows


def test_batches_have_a_minimum_length_and_bins_of_a_day_are_consecutive() -> None:
    random = np.random.default_rng(3)
    sizes, minutes = quarters.batch_sizes_and_intervals(5000, 2 * quarters.MINUTES_PER_DAY, random)
    assert minutes[1:].min() == MIN_BATCH_INTERVAL.total_seconds() // 60
    stream = quarters.make_stream(sizes, minutes, np.arange(1000), np.arange(1000), random, share_per_day=0.2)
    days = np.cumsum(minutes)[stream.batch] // quarters.MINUTES_PER_DAY
    result = [np.unique(stream.bin[days == day]) for day in (0, 1)]
    assert [len(bins) for bins in result] == [200, 200]
    assert not np.array_equal(*result)


def test_same_hours_reference_ignores_nights_but_detects_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    week = 7 * quarters.MINUTES_PER_DAY
    monkeypatch.setattr(same_hours, "LEAD_MINUTES", 3 * week)
    reference, observed = make_reference(_observed(600, 0)), _observed(BINS, 1)
    values = dict(observed.properties) | {Signal.CONFIDENCE: observed.probabilities.max(axis=1)}
    classes = {Signal.PREDICTED: observed.probabilities.argmax(axis=1), Signal.EXPECTED: observed.labels}
    light = quarters.PhotoValues(values, classes, observed.embeddings)
    dim = replace(light, values=values | {Signal.BRIGHTNESS: values[Signal.BRIGHTNESS] - 0.2})
    random = np.random.default_rng(4)
    sizes, minutes = quarters.batch_sizes_and_intervals(5, 4 * week, random)
    stream = quarters.make_stream(sizes, minutes, np.arange(BINS), np.arange(BINS), random)
    photo_minutes = quarters.photo_minutes(stream)
    stream.row[quarters.is_night(photo_minutes // 60 % 24)] += BINS
    photos = quarters.concatenate(light, dim)
    assert same_hours.find_alarms(stream, photos, reference, tuple(reference.labels), 0) == []
    stream.row[photo_minutes > 3.5 * week] = (
        stream.row[photo_minutes > 3.5 * week] % BINS + BINS
    )  # from then on, days are as dark as nights
    (raised,) = same_hours.find_alarms(stream, photos, reference, tuple(reference.labels), 0)
    assert raised.signal is Signal.BRIGHTNESS
    assert np.cumsum(minutes)[raised.batch] > 3.5 * week
