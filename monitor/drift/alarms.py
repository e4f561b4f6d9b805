"""When drift raises an alarm: a scan of recent windows with a budget of false alarms per quarter.

Any single window is misjudged now and then, and a monitor runs for years, so one verdict is not an alarm. Photos are
divided into disjoint batches in the order of their records. When a batch closes, windows of the last 1, 2, 3, … batches
(WINDOW_LENGTHS) are judged, each at an equal part of the batch's level. That level is FALSE_ALARM_BUDGET per QUARTER,
times the time since the previous batch. So the levels of all tests in a quarter add up to at most FALSE_ALARM_BUDGET,
whether 10 or 100,000 photos arrive in an hour, and their sum is an upper bound of the expected number of false alarms.

This is a CUSUM in the form of a window-limited scan (Lai 1995, JRSS B 57, 613). It does not sum evidence or multiply
e-values from batch to batch, as is common: the reference is a sample as well, and its error, which all batches share,
would add up to an alarm in any sufficiently long run. Each test accounts for the errors of both samples, the window and
the reference, and expected numbers add up whether or not the tests are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from binwatch.bundle import Reference
from binwatch.reference import Signal
from binwatch.settings import DriftReference
from monitor.drift.dispersion import MAX_DISPERSION, dispersion
from monitor.drift.judge import WINDOW_LEVEL, SignalResult, Verdict, judge
from monitor.drift.same_hours import WEEK, WEEKS
from monitor.drift.windows import PhotoSample

FALSE_ALARM_BUDGET = 1.0
"""Maximum expected number of false alarms per QUARTER without drift, all signals, windows and slices of a model
together."""
ALL_PHOTOS_SHARE = 0.5
"""Share of the budget for the photos of all slices together, if there are slices. The slices divide the rest evenly. A
slice with few photos may not use up its part, because the level of a batch is capped."""
QUARTER = timedelta(days=91)
WINDOW_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Lengths, in batches, of the windows that are judged when a batch closes. Short windows detect strong drift at once,
long ones detect weak drift; lengths in between would give nearly the same results."""
REPEAT_LEVEL_FACTOR = 0.01
"""Factor applied to a signal's level for each alarm that it raised in the last QUARTER. The reference is a sample: with
an unlucky one, a signal is always close to its threshold, and alarms would come and go all the time."""
MAX_RECENT_ALARMS = 4
"""Maximum number of alarms that lower the level. With more, thresholds would exceed all possible distances and hide
strong drift that recurs daily."""
MIN_CALM_BATCHES = 4
"""Minimum length, in batches, of the window that ends an alarm."""
MIN_EMBEDDINGS = 150
"""Minimum number of embeddings that can raise an alarm. The mean of fewer is not close enough to normal for such small
levels."""
DISPERSION_MEMORY = 64
"""Number of batches that the running mean of the dispersion goes back."""
DISPERSION_PRIOR = 4
"""Weight, in batches, of the initial dispersion of 1 in the running mean."""
MAX_SAME_HOURS_DISPERSION = 100.0
"""Upper bound of the dispersion between a window and the same hours of previous weeks. Days may differ far more than
neighbouring windows, and a mean over weeks hardly absorbs a change that is detected soon."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A signal's alarm, with the window that raised it."""

    since: datetime
    """When the alarm was raised."""
    began: datetime
    """Start of the window."""
    batch: int
    """Number of the window's last batch."""
    batches: int
    """Length of the window in batches."""
    photos: int
    """Photos of the window that have a value of the signal."""


@dataclass(frozen=True, slots=True)
class AlarmState:
    """The alarms after a batch, and what is needed to judge the next one. It is stored with each batch."""

    alarms: dict[Signal, Alarm] = field(default_factory=dict)
    """Raised alarms."""
    raised: dict[Signal, tuple[datetime, ...]] = field(default_factory=dict)
    """When the alarms of the last QUARTER were raised, including those that have ended: the last MAX_RECENT_ALARMS."""
    first: dict[Signal, int] = field(default_factory=dict)
    """For a signal whose alarm has ended: number of the first batch that a window may include to raise the next one."""
    dispersion: dict[Signal, dict[int, float]] = field(default_factory=dict)
    """Running mean of the dispersion (monitor.drift.dispersion) by the window's length in batches."""
    judged: int = 0
    """Number of batches judged since this state was last reset."""
    reference: DriftReference = DriftReference.TRAINING
    """What batches are compared with. The next three fields are only used with the same hours."""
    compared: int = 0
    """Number of batches with at least one window that could be compared."""
    compared_since: datetime | None = None
    """When the first of these batches was closed."""
    hours: frozenset[int] = frozenset()
    """Hours of the week (0: Monday, 00:00 to 01:00 UTC) whose last batch could be compared."""

    @property
    def alarms_from(self) -> datetime | None:
        """When alarms can first be raised: a week after the first comparison, to learn how days differ; else None."""
        return self.compared_since + WEEK if self.compared_since else None

    @property
    def uses_same_hours(self) -> bool:
        """Whether batches are compared with the same hours of previous weeks."""
        return self.reference is DriftReference.SAME_HOURS

    def is_collecting(self, now: datetime) -> bool:
        """Return whether it is too early for alarms."""
        return self.uses_same_hours and (self.alarms_from is None or now < self.alarms_from)


@dataclass(frozen=True, slots=True)
class BatchWindow:
    """A window of the last `length` batches."""

    length: int
    first_batch: int
    """Number of its first batch."""
    start: datetime
    """When its first batch began."""
    sample: PhotoSample
    previous: PhotoSample | None
    """The preceding window of the same length, if there is one, or photos of the same hours of previous weeks."""
    same_hours_reference: Reference | None = None
    """Reference made from photos of the same hours of previous weeks, if they are used and there are enough."""


def budget_share(slices: int, *, all_photos: bool) -> float:
    """Return the share of the budget for the photos of all slices together, or for one of `slices` slices.

    A new slice makes the shares of the other slices smaller, and never increases what has already been spent.
    """
    if not slices:
        return 1.0
    return ALL_PHOTOS_SHARE if all_photos else (1 - ALL_PHOTOS_SHARE) / slices


def batch_level(elapsed: timedelta | None, share: float = 1.0) -> float:
    """Return the allowed probability of a false alarm in a batch, `elapsed` after the last one; None for the first.

    It never exceeds WINDOW_LEVEL: a monitor that was down for a month does not accumulate budget.
    """
    if elapsed is None:
        return WINDOW_LEVEL * share
    return min(FALSE_ALARM_BUDGET * share * max(elapsed / QUARTER, 0.0), WINDOW_LEVEL)


def next_state(
    state: AlarmState, windows: Sequence[BatchWindow], reference: Reference | None, level: float, now: datetime
) -> AlarmState:
    """Return the state after a new batch. All `windows` end with it, the shortest is first; `level` is the batch's."""
    alarms = dict(state.alarms)
    recent = {
        signal: tuple(raised_at for raised_at in times if now - raised_at < QUARTER)
        for signal, times in state.raised.items()
    }
    for window in () if state.is_collecting(now) else windows:
        for result in _judge_for_alarms(window, reference, state, level / len(windows), recent):
            signal = result.signal
            if signal is Signal.EMBEDDING and result.photos < MIN_EMBEDDINGS:
                continue
            is_new = signal not in alarms and window.first_batch >= state.first.get(signal, 0)
            if result.verdict is Verdict.DRIFTED and is_new:
                alarms[signal] = Alarm(now, window.start, windows[0].first_batch, window.length, result.photos)
                recent[signal] = (*recent.get(signal, ()), now)[-MAX_RECENT_ALARMS:]
    first = dict(state.first)
    for signal in state.alarms:
        if (calm_window := _find_calm_window(signal, state, windows, reference)) is not None:
            del alarms[signal]
            first[signal] = calm_window.first_batch
    updated = replace(
        state,
        alarms=alarms,
        raised={signal: times for signal, times in recent.items() if times},
        first=first,
        dispersion=_update_dispersion(state, windows, reference, now),
        judged=state.judged + 1,
    )
    return _update_hours(updated, windows, now) if state.uses_same_hours else updated


def _update_hours(state: AlarmState, windows: Sequence[BatchWindow], now: datetime) -> AlarmState:
    batch = windows[0]
    batch_hours = hours_of_week(batch.start, now)
    hours = state.hours - batch_hours if batch.same_hours_reference is None else state.hours | batch_hours
    if all(window.same_hours_reference is None for window in windows):
        return replace(state, hours=hours)
    return replace(state, compared=state.compared + 1, compared_since=state.compared_since or now, hours=hours)


def hours_of_week(start: datetime, end: datetime) -> frozenset[int]:
    """Return the hours of the week from `start` to `end`; 0 is Monday, 00:00 to 01:00 UTC."""
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    count = min(int((end - first) / timedelta(hours=1)) + 1, 7 * 24)
    return frozenset((first.weekday() * 24 + first.hour + hour) % (7 * 24) for hour in range(count))


def _reference_for(window: BatchWindow, reference: Reference | None, state: AlarmState) -> Reference | None:
    return window.same_hours_reference if state.uses_same_hours else reference


def _judge_window(
    window: BatchWindow, reference: Reference | None, state: AlarmState, level: float = WINDOW_LEVEL
) -> list[SignalResult]:
    return judge(
        window.sample,
        _reference_for(window, reference, state),
        level,
        _known_dispersion(state, window.length),
        is_reference_dispersed=state.uses_same_hours,
    )


def _judge_for_alarms(
    window: BatchWindow,
    reference: Reference | None,
    state: AlarmState,
    level: float,
    recent: Mapping[Signal, Sequence[datetime]],
) -> list[SignalResult]:
    """Judge each signal at `level`, lowered by REPEAT_LEVEL_FACTOR for each of its recent alarms."""
    results_by_alarms = {
        n_alarms: {
            result.signal: result
            for result in _judge_window(window, reference, state, level * REPEAT_LEVEL_FACTOR**n_alarms)
        }
        for n_alarms in {0, *map(len, recent.values())}
    }
    return [results_by_alarms[len(recent.get(signal, ()))][signal] for signal in results_by_alarms[0]]


def _find_calm_window(
    signal: Signal, state: AlarmState, windows: Sequence[BatchWindow], reference: Reference | None
) -> BatchWindow | None:
    """Return the window that ends an alarm: later than the one that raised it, at least as long, and not drifted.

    It is judged at WINDOW_LEVEL, whose threshold is lower than the one that raises alarms. So an alarm does not come
    and go while a signal is close to either threshold.
    """
    alarm = state.alarms[signal]
    length = min(max(alarm.batches, MIN_CALM_BATCHES), windows[-1].length)
    candidates = (window for window in windows if window.length == length and window.first_batch > alarm.batch)
    window = next(candidates, None)
    if window is None or _reference_for(window, reference, state) is None:
        return None
    verdicts = {result.signal: result.verdict for result in _judge_window(window, reference, state)}
    # Without NO_REFERENCE, the alarm of a signal that the reference no longer has would never end.
    return window if verdicts[signal] in (Verdict.STEADY, Verdict.NO_REFERENCE) else None


def _known_dispersion(state: AlarmState, length: int) -> dict[Signal, float]:
    """Return each signal's dispersion before this batch: at least 1, and at least that of shorter windows."""
    return {
        signal: max([1.0, *(mean for mean_length, mean in means.items() if mean_length <= length)])
        for signal, means in state.dispersion.items()
    }


def _update_dispersion(
    state: AlarmState, windows: Sequence[BatchWindow], reference: Reference | None, now: datetime
) -> dict[Signal, dict[int, float]]:
    means = {signal: dict(by_length) for signal, by_length in state.dispersion.items()}
    max_dispersion = MAX_SAME_HOURS_DISPERSION if state.uses_same_hours else MAX_DISPERSION
    for window in windows:
        window_reference = _reference_for(window, reference, state)
        if window.previous is None or window_reference is None:
            continue
        if state.uses_same_hours:
            first_batch, weight = window.first_batch, _same_hours_weight(state, now)
        else:
            first_batch = window.first_batch - window.length
            judged = min(windows[0].first_batch, state.judged + 1)
            n_averaged = max(judged - 2 * window.length, 0)  # earlier batches that had a previous window of this length
            weight = max(1 / DISPERSION_MEMORY, 1 / (n_averaged + DISPERSION_PRIOR + 1))
        values = dispersion(window.sample, window.previous, window_reference, max_dispersion)
        for signal, value in values.items():
            if signal in state.alarms or first_batch < state.first.get(signal, 0):
                continue  # after a change, a difference does not mean that photos of a window resemble each other
            mean = means.setdefault(signal, {}).get(window.length, 1.0)
            means[signal][window.length] = mean + weight * (value - mean)
    return means


def _same_hours_weight(state: AlarmState, now: datetime) -> float:
    """Weight of a batch in the running mean, which goes back WEEKS: batches of one day say nothing about other days."""
    elapsed = now - state.compared_since if state.compared_since else timedelta(0)
    return max(elapsed / (WEEKS * WEEK) / max(state.compared, 1), 1 / (state.compared + DISPERSION_PRIOR + 1))
