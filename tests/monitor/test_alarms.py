"""Drift alarms, batch by batch: what raises them, what ends them, and what must not raise them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import NormalDist
from threading import Barrier

import numpy as np
import pytest
from sqlalchemy import Engine, RowMapping, select, text, update

from binwatch.bundle import Reference
from binwatch.records.tables import Count, DriftBatch
from binwatch.reference import Signal
from binwatch.settings import DriftReference, load_settings
from monitor.drift import batches, windows
from monitor.drift.alarms import (
    FALSE_ALARM_BUDGET,
    MIN_CALM_BATCHES,
    QUARTER,
    WINDOW_LENGTHS,
    AlarmState,
    BatchWindow,
    batch_level,
    budget_share,
    next_state,
)
from monitor.drift.batches import DriftCheck
from monitor.drift.dispersion import dispersion
from monitor.drift.judge import WINDOW_LEVEL
from monitor.drift.same_hours import draw_same_hours, make_same_hours_reference
from monitor.drift.windows import PhotoSample
from monitor.records import Records, WritableRecords
from monitor.totals import slice_names
from tests.monitor.drifting import MODEL, REFERENCE, record_photos, simulated_photos

# Only brightness: simulating the thresholds of class counts for all sizes takes seconds.
BRIGHTNESS_REFERENCE = Reference(
    photos=1000,
    predicted=[],
    labels=[],
    confidence=[],
    quantiles={"brightness": REFERENCE.quantiles["brightness"]},
)
BATCH_INTERVAL = timedelta(minutes=5)
START = datetime(2026, 1, 1, tzinfo=UTC)


def _sample(brightness: np.ndarray) -> PhotoSample:
    nothing = np.zeros(len(brightness), int)
    return PhotoSample(nothing, nothing.astype(float), nothing[:0], 0, {Signal.BRIGHTNESS: brightness})


class _WatchedModel:
    """The alarm state of a model whose batches are closed one after the other."""

    def __init__(self) -> None:
        self.state = AlarmState()
        self._batches: list[np.ndarray] = []

    def close(self, brightness: np.ndarray) -> bool:
        """Close a batch and return whether the brightness alarm is raised."""
        self._batches.append(brightness)
        number, level = len(self._batches), batch_level(BATCH_INTERVAL)
        self.state = next_state(
            self.state, list(self._windows()), BRIGHTNESS_REFERENCE, level, START + number * BATCH_INTERVAL
        )
        return Signal.BRIGHTNESS in self.state.alarms

    def _windows(self) -> Iterator[BatchWindow]:
        number = len(self._batches)
        for span in WINDOW_LENGTHS:
            if span <= number:
                before = self._batches[number - 2 * span : number - span] if 2 * span <= number else None
                yield BatchWindow(
                    span,
                    number - span + 1,
                    START + (number - span) * BATCH_INTERVAL,
                    _sample(np.concatenate(self._batches[-span:])),
                    _sample(np.concatenate(before)) if before else None,
                )


def _brightness(random: np.random.Generator, brighter: float = 0.0) -> np.ndarray:
    return random.normal(0.4 + brighter, 0.1, 50)


def test_levels_of_a_quarter_sum_to_the_budget_at_any_batch_rate() -> None:
    for interval in (timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=5)):
        assert batch_level(interval) * (QUARTER / interval) == pytest.approx(FALSE_ALARM_BUDGET)
    assert batch_level(timedelta(days=30)) == batch_level(None) == WINDOW_LEVEL, (
        "time without photos does not raise the level"
    )
    assert batch_level(timedelta(seconds=-5)) == 0, "a clock that was set back"


@pytest.mark.parametrize("slices", [1, 10, 200])
def test_slices_and_all_photos_share_one_budget(slices: int) -> None:
    """Slices have different batch rates, and half of them appear only after half of the quarter."""
    half, spent = QUARTER / 2, 0.0
    for known_slices in (-(-slices // 2), slices):
        spent += batch_level(timedelta(minutes=1), budget_share(known_slices, all_photos=True)) * (
            half / timedelta(minutes=1)
        )
        for number in range(known_slices):
            interval = timedelta(minutes=1 + number)
            spent += batch_level(interval, budget_share(known_slices, all_photos=False)) * (half / interval)
    assert spent == pytest.approx(FALSE_ALARM_BUDGET)
    first_share = budget_share(slices, all_photos=True) + slices * budget_share(slices, all_photos=False)
    assert batch_level(None) * first_share == pytest.approx(WINDOW_LEVEL), "the first batches get no more either"
    assert budget_share(0, all_photos=True) == 1


def test_an_alarm_is_raised_once_and_ends_when_photos_return_to_normal() -> None:
    random, watched = np.random.default_rng(1), _WatchedModel()
    assert not any(watched.close(_brightness(random)) for _ in range(40))
    raised = [watched.close(_brightness(random, 0.1)) for _ in range(6)]
    assert raised == [True] * 6
    alarm = watched.state.alarms[Signal.BRIGHTNESS]
    assert (alarm.batch, alarm.batches, alarm.photos) == (41, 1, 50)
    assert (alarm.began, alarm.since) == (START + 40 * BATCH_INTERVAL, START + 41 * BATCH_INTERVAL)
    calm = [watched.close(_brightness(random)) for _ in range(MIN_CALM_BATCHES)]
    assert (calm[0], calm[-1]) == (True, False)
    # Longer windows still contain the bright photos and exceed their thresholds, but raise no new alarm.
    assert not any(watched.close(_brightness(random)) for _ in range(30))
    assert 42 <= watched.state.first[Signal.BRIGHTNESS] <= 47


def test_a_fluctuating_signal_raises_few_alarms_in_a_quarter() -> None:
    """Otherwise a signal that is always close to its threshold, as with an unlucky reference, would raise hundreds."""
    watched, random = _WatchedModel(), np.random.default_rng(1)
    brightness = NormalDist(0.4, 0.1)
    normal_photos = np.array([brightness.inv_cdf((index + 0.5) / 50) for index in range(50)])

    def is_raised(brighter: float) -> bool:
        # Reset the dispersion, which a fluctuating signal increases as well.
        watched.state = replace(watched.state, dispersion={})
        was_raised = watched.close(random.permutation(normal_photos) + brighter)
        while Signal.BRIGHTNESS in watched.state.alarms:
            watched.close(random.permutation(normal_photos))
        for _ in range(WINDOW_LENGTHS[-1]):  # until no window contains it
            watched.close(random.permutation(normal_photos))
        return was_raised

    assert not is_raised(0.0)
    assert [is_raised(0.1) for _ in range(4)] == [True, False, False, False]
    assert is_raised(0.15), "a stronger shift raises a new alarm"
    assert len(watched.state.raised[Signal.BRIGHTNESS]) == 2
    long_ago = tuple(raised_at - QUARTER for raised_at in watched.state.raised[Signal.BRIGHTNESS])
    watched.state = replace(watched.state, raised={Signal.BRIGHTNESS: long_ago})
    assert is_raised(0.1), "a quarter later the level is the original one"
    assert len(watched.state.raised[Signal.BRIGHTNESS]) == 1
    assert all(is_raised(0.2) for _ in range(12)), "strong daily drift is never hidden"


def test_a_small_shift_is_detected_over_several_batches() -> None:
    random, watched = np.random.default_rng(2), _WatchedModel()
    raised = [watched.close(_brightness(random, 0.04)) for _ in range(20)]
    assert True in raised
    alarm = watched.state.alarms[Signal.BRIGHTNESS]
    assert alarm.batches > 1
    assert raised[alarm.batch - 1 :] == [True] * (20 - alarm.batch + 1)


def test_correlated_photos_reduce_the_effective_sample_size() -> None:
    """Photos of one camera or hour are alike: each batch has its own brightness, which is not drift."""
    random, watched = np.random.default_rng(3), _WatchedModel()
    for _ in range(WINDOW_LENGTHS[-1]):
        watched.close(_brightness(random, random.normal(0, 0.03)))
    estimate = watched.state.dispersion[Signal.BRIGHTNESS]
    assert estimate[1] > 2
    for known_dispersion, raises in ((watched.state.dispersion, False), ({}, True)):
        model = _WatchedModel()
        model.state = AlarmState(dispersion=known_dispersion)
        assert model.close(_brightness(np.random.default_rng(4), 0.1)) is raises


def test_independent_photos_have_a_dispersion_of_one() -> None:
    dispersions = []
    for seed in range(40):
        first, second = (simulated_photos(60, seed=2 * seed + part) for part in range(2))
        samples = [
            PhotoSample(
                photos.probabilities.argmax(axis=1),
                photos.probabilities.max(axis=1),
                photos.labels,
                0,
                dict(photos.properties),
                photos.embeddings,
            )
            for photos in (first, second)
        ]
        dispersions.append(dispersion(samples[0], samples[1], REFERENCE))
    for signal in Signal:
        values = np.array([first[signal] for first in dispersions])
        assert values.mean() == pytest.approx(1, abs=5 * values.std() / np.sqrt(len(values))), signal


@dataclass
class _Monitor:
    """Updates the alarms as a monitor does at each poll, at a given hour from now."""

    engine: Engine

    def __post_init__(self) -> None:
        url = self.engine.url.render_as_string(hide_password=False)
        self.records, self.writable = Records(url), WritableRecords(url)

    def update(self, hour: int = 0, model: str = MODEL, reference: Reference | None = REFERENCE) -> set[Signal]:
        now = datetime.now(UTC) + timedelta(hours=hour)
        return set(batches.update_alarms(self.records, self.writable, DriftCheck(model, reference, now)).alarms)

    def update_slices(self, hour: int = 0, model: str = MODEL) -> dict[str, set[Signal]]:
        now, slicing = datetime.now(UTC) + timedelta(hours=hour), load_settings().slicing
        slices = self.records.read(lambda connection: slice_names(connection, slicing))
        states = batches.update_slice_alarms(self.records, self.writable, DriftCheck(model, REFERENCE, now), slices)
        return {name: set(state.alarms) for name, state in states.items()}

    def rows(self, model: str = MODEL) -> list[RowMapping]:
        with self.engine.connect() as connection:
            rows = select(DriftBatch.__table__).where(DriftBatch.model_version == model)
            rows = rows.order_by(DriftBatch.slice_id, DriftBatch.number)
            return list(connection.execute(rows).mappings())


def test_each_batch_starts_where_the_previous_one_ended(records_engine: Engine) -> None:
    monitor = _Monitor(records_engine)
    assert monitor.update() == set()
    record_photos(records_engine, simulated_photos(60, seed=1))
    assert monitor.update(reference=None) == set()
    assert monitor.rows() == [], "photos wait for a reference"
    monitor.update()
    record_photos(records_engine, simulated_photos(40, seed=2, brighter=0.2), prefix="more ")
    assert monitor.update(1) == set(), "too few for another batch"
    record_photos(records_engine, simulated_photos(20, seed=3, brighter=0.2), prefix="yet more ")
    assert _Monitor(records_engine).update(2) == {Signal.BRIGHTNESS}, "also after a restart"
    first, second = monitor.rows()
    assert [first["number"], second["number"]] == [1, 2]
    assert sorted(first["count_ids"] + second["count_ids"]) == list(range(1, 121))
    assert second["began_at"] == first["closed_at"]
    assert monitor.update(3) == {Signal.BRIGHTNESS}, "without new photos nothing changes"
    assert len(monitor.rows()) == 2


def test_photos_not_judged_for_long_are_overdue(records_engine: Engine) -> None:
    monitor = _Monitor(records_engine)
    record_photos(records_engine, simulated_photos(60, seed=1))

    def is_overdue(minutes: int) -> bool:
        return batches.is_overdue(monitor.records, DriftCheck(MODEL, REFERENCE, now + timedelta(minutes=minutes)))

    now = datetime.now(UTC)
    assert [is_overdue(14), is_overdue(16)] == [False, True]
    monitor.update()
    now = datetime.now(UTC)
    assert not is_overdue(60), "all photos are in the batch"
    record_photos(records_engine, simulated_photos(60, seed=2), prefix="more ")
    assert [is_overdue(29), is_overdue(31)] == [False, True]


@pytest.fixture
def by_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slice photos by the first letter of their bin."""
    monkeypatch.setenv("BINWATCH_SLICE_PATTERN", "/([a-z])-")


@pytest.mark.usefixtures("by_letter")
def test_the_drifted_slice_is_named(records_engine: Engine) -> None:
    monitor, quiet = _Monitor(records_engine), {"a": set[Signal](), "b": set[Signal](), "other": set[Signal]()}
    record_photos(records_engine, simulated_photos(60, seed=1), prefix="a-")
    record_photos(records_engine, simulated_photos(60, seed=2), prefix="b-")
    assert monitor.update_slices() == quiet
    record_photos(records_engine, simulated_photos(40, seed=3), prefix="a-1-")
    record_photos(records_engine, simulated_photos(60, seed=4, brighter=0.2), prefix="b-1-")
    moved = quiet | {"b": {Signal.BRIGHTNESS}}
    assert monitor.update_slices(1) == moved
    record_photos(records_engine, simulated_photos(20, seed=5), prefix="a-2-")
    assert _Monitor(records_engine).update_slices(2) == moved, "also after a restart"
    batches_of = [
        (row["slice_id"], row["number"], min(row["count_ids"]), max(row["count_ids"])) for row in monitor.rows()
    ]
    (a, b) = sorted({row[0] for row in batches_of})
    assert batches_of == [(a, 1, 1, 60), (a, 2, 121, 240), (b, 1, 61, 120), (b, 2, 161, 220)]


@pytest.mark.usefixtures("by_letter")
def test_a_slice_is_watched_regardless_of_other_models_photos(
    sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH_PHOTOS", 50)
    monitor = _Monitor(sqlite_records)
    record_photos(sqlite_records, simulated_photos(1_100, seed=1), prefix="a-")
    assert monitor.update_slices(model="next") == {"a": set(), "other": set()}
    record_photos(sqlite_records, simulated_photos(60, seed=2, brighter=0.2), prefix="a-", model="next")
    record_photos(sqlite_records, simulated_photos(300, seed=3), prefix="b-")
    assert monitor.update_slices(1, "next")["a"] == {Signal.BRIGHTNESS}
    (row,) = monitor.rows("next")
    assert (min(row["count_ids"]) > 1_100, max(row["count_ids"]) <= 1_160) == (True, True)


def test_two_monitors_close_a_batch_once(records_engine: Engine) -> None:
    record_photos(records_engine, simulated_photos(60, seed=1, brighter=0.2))
    barrier = Barrier(2)

    def update_once(_: int) -> set[Signal]:
        monitor = _Monitor(records_engine)
        barrier.wait(30)
        return monitor.update()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(update_once, range(2))) == [{Signal.BRIGHTNESS}] * 2
    assert [row["number"] for row in _Monitor(records_engine).rows()] == [1]


def test_a_new_model_starts_with_no_batches(sqlite_records: Engine) -> None:
    monitor = _Monitor(sqlite_records)
    record_photos(sqlite_records, simulated_photos(60, seed=1, brighter=0.2))
    assert monitor.update() == {Signal.BRIGHTNESS}
    record_photos(sqlite_records, simulated_photos(60, seed=2), model="next")
    assert monitor.update(1, "next") == set()
    assert monitor.update(1) == {Signal.BRIGHTNESS}
    assert [row["count_ids"] for row in monitor.rows("next")] == [list(range(61, 121))]


def test_further_photos_of_the_same_bins_are_ignored(sqlite_records: Engine) -> None:
    monitor = _Monitor(sqlite_records)
    record_photos(sqlite_records, simulated_photos(120, seed=1))
    with sqlite_records.begin() as connection:
        connection.execute(text("UPDATE counts SET bin_id = CAST(id % 49 AS TEXT)"))
    monitor.update()
    assert monitor.rows() == []


def test_a_large_batch_is_sampled(sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH_PHOTOS", 50)
    monitor = _Monitor(sqlite_records)
    record_photos(sqlite_records, simulated_photos(400, seed=1))
    monitor.update()
    (row,) = monitor.rows()
    assert (len(row["count_ids"]), row["last_count_id"]) == (50, 400)
    assert min(row["count_ids"]) < 100
    assert max(row["count_ids"]) > 300
    assert monitor.update(1) == set()
    assert len(monitor.rows()) == 1, "photos that were not drawn are not used later"


def test_a_reactivated_model_is_watched_from_its_new_photos_on(
    sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random draw among all photos would mostly return photos that the other model counted in the meantime."""
    monkeypatch.setattr(batches, "MAX_BATCH_PHOTOS", 50)
    monitor = _Monitor(sqlite_records)
    record_photos(sqlite_records, simulated_photos(60, seed=1))
    monitor.update()
    record_photos(sqlite_records, simulated_photos(1_000, seed=2), model="next")
    record_photos(sqlite_records, simulated_photos(60, seed=3), prefix="back ")
    monitor.update(1)
    assert min(monitor.rows()[-1]["count_ids"]) > 1_060


def test_alarm_state_of_another_release_is_discarded(sqlite_records: Engine) -> None:
    monitor = _Monitor(sqlite_records)
    record_photos(sqlite_records, simulated_photos(60, seed=1, brighter=0.2))
    assert monitor.update() == {Signal.BRIGHTNESS}
    with sqlite_records.begin() as connection:
        connection.execute(text("UPDATE drift_batches SET state = replace(state, 'brightness', 'colour')"))
    assert monitor.update(1) == set()


def test_batches_have_a_minimum_interval_and_old_ones_are_deleted(
    records_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WINDOW_LENGTHS", (1, 2))
    monitor = _Monitor(records_engine)
    for number in range(4):
        record_photos(records_engine, simulated_photos(60, seed=number), prefix=f"{number} ")
        monitor.update(number)
        assert monitor.rows()[-1]["number"] == number + 1
        record_photos(records_engine, simulated_photos(60, seed=number), prefix=f"{number} soon ")
        monitor.update(number)
        assert monitor.rows()[-1]["number"] == number + 1, "too early for another batch"
    assert [row["number"] for row in monitor.rows()] == [3, 4]


@pytest.mark.usefixtures("by_letter")
def test_slice_batches_have_the_same_interval_and_are_numbered_separately(
    records_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WINDOW_LENGTHS", (1, 2))
    monitor, batch_numbers = _Monitor(records_engine), []
    for hour, letter in enumerate("abbbaa"):
        for part in range(2):  # the second part is too early for another batch
            record_photos(records_engine, simulated_photos(60, seed=hour), prefix=f"{letter}-{hour}-{part} ")
            monitor.update(hour)
            monitor.update_slices(hour)
        batch_numbers.append([(row["slice_id"], row["number"]) for row in monitor.rows()])
    a, b = sorted({slice_id for slice_id, _ in batch_numbers[-1]} - {0})
    assert batch_numbers[1] == [(0, 1), (0, 2), (a, 1), (a, 2), (b, 1)], "the rest of a's photos"
    assert batch_numbers[3] == [(0, 3), (0, 4), (a, 1), (a, 2), (b, 2), (b, 3)]
    assert batch_numbers[5] == [(0, 5), (0, 6), (a, 3), (a, 4), (b, 3), (b, 4)]


@pytest.mark.usefixtures("by_letter")
def test_a_large_slice_batch_is_sampled_over_its_whole_time(
    sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_SLICE_IDS", 80)
    record_photos(sqlite_records, simulated_photos(400, seed=1), prefix="a-")
    record_photos(sqlite_records, simulated_photos(40, seed=2), prefix="b-")
    with sqlite_records.connect() as connection:
        a = connection.execute(select(Count.slice_id).limit(1)).scalar_one()
        drawn = np.array(windows.draw_photos(connection, MODEL, 0, 400, 80, a))
    assert [int(((drawn > 50 * part) & (drawn <= 50 * (part + 1))).sum()) for part in range(8)] == [10] * 8


class _SameHoursMonitor(_Monitor):
    """Alarms that compare photos with those of the same hours in previous weeks."""

    def update_at(self, at: datetime, model: str = MODEL) -> AlarmState:
        check = DriftCheck(model, REFERENCE, at, DriftReference.SAME_HOURS)
        return batches.update_alarms(self.records, self.writable, check)

    def record(self, at: datetime, seed: int, *, brighter: float = 0.0, model: str = MODEL, letter: str = "a") -> None:
        photos = simulated_photos(120, seed=seed, brighter=brighter)
        record_photos(self.engine, photos, prefix=f"{letter}-{model} {at} ", model=model)
        with self.engine.begin() as connection:
            rows = update(Count).where(Count.recorded_at > START + timedelta(days=100))
            connection.execute(rows.values(recorded_at=at - timedelta(minutes=10)))


def test_darkness_at_night_is_not_drift_but_a_bright_night_is(records_engine: Engine) -> None:
    """Photos are dark at night until, in the last week, the night is as bright as the day."""
    monitor = _SameHoursMonitor(records_engine)
    states = {}
    for week in range(4):
        for hour in (12, 23):
            at = START + timedelta(days=7 * week, hours=hour)
            is_dark = hour == 23 and week < 3
            monitor.record(at, 100 * week + hour, brighter=-0.2 if is_dark else 0.0)
            states[week, hour] = monitor.update_at(at)
    assert not any(state.alarms for when, state in states.items() if when != (3, 23))
    assert set(states[3, 23].alarms) == {Signal.BRIGHTNESS}
    assert states[0, 23].alarms_from is None, "in the first week, there is nothing to compare with"
    begin = START + timedelta(days=14, hours=12)
    assert states[1, 12].alarms_from == states[3, 23].alarms_from == begin
    assert [states[1, 23].is_collecting(begin + timedelta(hours=hour)) for hour in (-1, 0)] == [True, False]
    assert {hour % 24 for hour in states[3, 12].hours} >= {12, 23}
    # A change of the reference resets the alarm state; with the training reference, each night is drift.
    assert batches.update_alarms(monitor.records, monitor.writable, DriftCheck(MODEL, REFERENCE, at)).alarms == {}
    at += timedelta(hours=1)
    monitor.record(at, 1, brighter=-0.2)
    state = batches.update_alarms(monitor.records, monitor.writable, DriftCheck(MODEL, REFERENCE, at))
    assert set(state.alarms) == {Signal.BRIGHTNESS}


@pytest.mark.usefixtures("by_letter")
def test_a_slice_is_compared_with_its_own_photos_of_the_same_hours(records_engine: Engine) -> None:
    """One camera is always dark until, in the last week, it is as bright as the other."""
    monitor, same_hours, states = _SameHoursMonitor(records_engine), DriftReference.SAME_HOURS, []
    slicing = load_settings().slicing
    for week in range(4):
        at = START + week * timedelta(days=7)
        monitor.record(at, 2 * week)
        monitor.record(at, 2 * week + 1, brighter=-0.2 if week < 3 else 0.0, letter="b")
        slices = monitor.records.read(lambda connection: slice_names(connection, slicing))
        check = DriftCheck(MODEL, REFERENCE, at, same_hours)
        states.append(batches.update_slice_alarms(monitor.records, monitor.writable, check, slices))
    assert [{name: set(state.alarms) for name, state in by_slice.items() if state.alarms} for by_slice in states] == [
        {},
        {},
        {},
        {"b": {Signal.BRIGHTNESS}},
    ]
    assert states[0]["b"].alarms_from is None, "in the first week, there is nothing to compare with"
    assert states[1]["b"].alarms_from == START + timedelta(days=14)
    assert states[3]["other"] == AlarmState(reference=same_hours)
    assert batches.read_slice_states(monitor.records, MODEL, slices, same_hours) == states[3]
    other_states = batches.read_slice_states(monitor.records, MODEL, slices)
    assert other_states == dict.fromkeys(states[3], AlarmState()), "a change of the reference resets the state"


def test_a_new_model_collects_its_own_reference_hours(sqlite_records: Engine) -> None:
    monitor = _SameHoursMonitor(sqlite_records)
    for week in range(2):
        monitor.record(START + week * timedelta(days=7), week)
        state = monitor.update_at(START + week * timedelta(days=7))
    assert state.hours
    at = START + timedelta(days=14)
    monitor.record(at, 3, model="next")
    assert monitor.update_at(at, "next") == AlarmState(reference=DriftReference.SAME_HOURS, judged=1)


def test_batches_of_few_bins_are_compared_by_longer_windows() -> None:
    """The reference of a single batch is always too small, that of two batches always large enough."""
    random = np.random.default_rng(6)
    state = AlarmState(reference=DriftReference.SAME_HOURS)
    for number in range(1, 12):
        before = _sample(np.concatenate([_brightness(random) for _ in range(4)]))
        windows = [
            BatchWindow(1, number, START, _sample(_brightness(random, 0.0)), None, None),
            BatchWindow(
                2, number - 1, START, _sample(_brightness(random, 0.0)), before, make_same_hours_reference(before, None)
            ),
        ]
        state = next_state(state, windows, None, batch_level(BATCH_INTERVAL), START + number * timedelta(days=1))
    assert (state.compared, state.alarms_from) == (11, START + timedelta(days=8))
    assert state.hours == frozenset()
    darker = replace(windows[1], sample=_sample(_brightness(random, 0.4)))
    raised = next_state(state, [windows[0], darker], None, batch_level(BATCH_INTERVAL), START + timedelta(days=12))
    assert set(raised.alarms) == {Signal.BRIGHTNESS}


def test_a_window_of_more_than_a_week_is_not_compared_with_itself(sqlite_records: Engine) -> None:
    monitor = _SameHoursMonitor(sqlite_records)
    monitor.record(START, 0)
    monitor.record(START + timedelta(days=7), 1)
    at = START + timedelta(days=14)
    began = [at - timedelta(days=7), at - timedelta(days=8)]
    week, longer = monitor.records.read(lambda connection: draw_same_hours(connection, MODEL, began, at))
    assert week
    assert longer == []


def test_differences_between_days_widen_same_hour_thresholds() -> None:
    """The photos of a window, and those of its reference, share the brightness of their day."""
    random = np.random.default_rng(5)
    state = AlarmState(reference=DriftReference.SAME_HOURS, compared_since=START - timedelta(days=7))
    raised = 0
    for number in range(1, 61):
        before = _sample(np.concatenate([_brightness(random, random.normal(0, 0.03)) for _ in range(4)]))
        window = _sample(_brightness(random, random.normal(0, 0.03)))
        batch = BatchWindow(1, number, START, window, before, make_same_hours_reference(before, None))
        state = next_state(state, [batch], None, batch_level(BATCH_INTERVAL), START + number * timedelta(days=1))
        raised += number > 10 and bool(state.alarms)
    assert state.dispersion[Signal.BRIGHTNESS][1] > 2
    assert raised == 0
    batch = BatchWindow(
        1, 61, START, _sample(_brightness(random, 0.4)), before, make_same_hours_reference(before, None)
    )
    assert set(next_state(state, [batch], None, batch_level(BATCH_INTERVAL), START + timedelta(days=61)).alarms) == {
        Signal.BRIGHTNESS
    }
