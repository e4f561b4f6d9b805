"""When drift raises an alarm: a scan of recent windows with a budget of false alarms per quarter.

A window is judged wrongly now and then, and a monitor looks for years. So an alarm is not what one look says. Photos
are taken in disjoint batches, in the order of their records. When a batch closes, windows of the last 1, 2, 3, … of
them are judged, each at its part of the level that the batch has: its share, by the time since the one before, of
BUDGET false alarms in a QUARTER. Levels of all tests of a quarter add up to BUDGET then, at 10 photos an hour as at
100,000, and so does the number of false alarms to expect at most.

That is a CUSUM in the form of a window-limited scan (Lai 1995, JRSS B 57, 613). It is not the usual sum of evidence, or
product of e-values, from batch to batch: the reference is a sample as well, and its error, which all batches share,
would add up to an alarm in any run that is long enough. A level holds over both samples, the window and the reference,
and an expected number adds up whether tests depend on each other or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from binwatch.bundle import Reference
from binwatch.reference import Signal
from binwatch.settings import DriftReference
from monitor.drift.dispersion import MOST, dispersion
from monitor.drift.judge import LEVEL, SignalResult, Verdict, judge
from monitor.drift.same_hours import WEEK, WEEKS
from monitor.drift.windows import PhotoSample

BUDGET = 1.0
"""False alarms to expect at most in a QUARTER without drift, all signals, windows and slices of a model together."""
WHOLE = 0.5
"""Part of BUDGET that the photos of all slices together have, if there are slices. Those have the rest, in equal parts:
a slice that has few photos has few chances to use it, and costs the others nothing."""
QUARTER = timedelta(days=91)
SPANS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Lengths in batches of the windows that are judged when a batch closes. Short ones find what is strong at once, long
ones what is weak; one between two of these would be hardly different from them."""
REPEATED = 0.01
"""What each alarm that a signal raised in the last QUARTER leaves of the level of its next one. The reference is a
sample: with an unlucky one, a signal is always close to its threshold, and alarms would come and go all the time."""
COUNTED = 4
"""Most alarms that count so. With more, thresholds would pass all distances and hide strong drift that comes daily."""
CALM = 4
"""Fewest batches that end an alarm."""
NORMAL = 150
"""Fewest embeddings that raise an alarm: the mean of fewer is not normal enough for levels as small as these."""
MEMORY = 64
"""Batches that the running mean of the dispersion reaches back."""
PRIOR = 4
"""Batches that the value which it begins with, 1, is worth."""
MOST_BY_HOURS = 100.0
"""Largest dispersion that counts of a window and the same hours before. Days may differ far more than neighbours, and a
mean over weeks takes little of a change that is soon found."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A signal that has drifted, as it was when that was found."""

    since: datetime
    """When the alarm was raised."""
    began: datetime
    """The photos that raised it were recorded from here on."""
    batch: int
    """Number of the batch that raised it."""
    batches: int
    """Length in batches of the window that raised it,"""
    photos: int
    """and its photos."""


@dataclass(frozen=True, slots=True)
class AlarmState:
    """What is known after a batch."""

    alarms: dict[Signal, Alarm] = field(default_factory=dict)
    """Those that are raised."""
    raised: dict[Signal, tuple[datetime, ...]] = field(default_factory=dict)
    """When the last COUNTED alarms of the last QUARTER were raised, those that have ended included."""
    first: dict[Signal, int] = field(default_factory=dict)
    """Number of the first batch that counts, of a signal whose alarm has ended: what raised it is not news again."""
    dispersion: dict[Signal, dict[int, float]] = field(default_factory=dict)
    """How much more photos of a window resemble each other than independent ones would, by the window's length in
    batches: a running mean of monitor.drift.dispersion."""
    judged: int = 0
    """Batches since alarms began anew."""
    reference: DriftReference = DriftReference.TRAINING
    """What batches are compared with. The next three are of the same hours before alone."""
    compared: int = 0
    """Batches whose windows, or some of them, have been compared with them."""
    compared_since: datetime | None = None
    """When the first was."""
    hours: frozenset[int] = frozenset()
    """Hours of the week (0: Monday, 0 to 1 o'clock UTC) whose last batch could be compared."""

    @property
    def alarms_from(self) -> datetime | None:
        """When alarms can be raised: how much days differ has to be known first. None while that is not foreseeable."""
        return self.compared_since + WEEK if self.compared_since else None

    @property
    def is_by_hours(self) -> bool:
        """Whether batches are compared with the same hours before."""
        return self.reference is DriftReference.SAME_HOURS

    def is_collecting(self, now: datetime) -> bool:
        """Whether it is too early for alarms."""
        return self.is_by_hours and (self.alarms_from is None or now < self.alarms_from)


@dataclass(frozen=True, slots=True)
class BatchWindow:
    """The last so many batches."""

    batches: int
    first: int
    """Number of the first of them."""
    began: datetime
    """Its photos were recorded from here on."""
    seen: PhotoSample
    before: PhotoSample | None
    """The batches before, as many; None if that are not as many. Or photos of the same hours before."""
    same_hours: Reference | None = None
    """Made of the latter."""


def share_of(slices: int, *, whole: bool) -> float:
    """Part of BUDGET of the photos of all slices together, or of one of so many slices.

    A new slice makes the parts of the others smaller, and never larger what was spent before.
    """
    if not slices:
        return 1.0
    return WHOLE if whole else (1 - WHOLE) / slices


def level_of(elapsed: timedelta | None, share: float = 1.0) -> float:
    """Chance of a false alarm that a batch may have, by the time since the one before; None for a model's first.

    Never above the level of a window that is shown: a monitor that was away for a month has not saved up for a guess.
    """
    return LEVEL * share if elapsed is None else min(BUDGET * share * max(elapsed / QUARTER, 0.0), LEVEL)


def next_state(
    state: AlarmState, windows: Sequence[BatchWindow], reference: Reference | None, level: float, now: datetime
) -> AlarmState:
    """What a new batch changes. `windows` end with it, the shortest first; `level` is that of the batch."""
    alarms = dict(state.alarms)
    recent = {signal: tuple(at for at in times if now - at < QUARTER) for signal, times in state.raised.items()}
    for window in () if state.is_collecting(now) else windows:
        for one in _judged_for_news(window, reference, state, level / len(windows), recent):
            if one.signal is Signal.EMBEDDING and one.photos < NORMAL:
                continue
            is_news = one.signal not in alarms and window.first >= state.first.get(one.signal, 0)
            if one.verdict is Verdict.DRIFTED and is_news:
                alarms[one.signal] = Alarm(now, window.began, windows[0].first, window.batches, one.photos)
                recent[one.signal] = (*recent.get(one.signal, ()), now)[-COUNTED:]
    first = dict(state.first)
    for signal in state.alarms:
        if (calm := _calm(signal, state, windows, reference)) is not None:
            del alarms[signal]
            first[signal] = calm.first
    means = _dispersion(state, windows, reference, now)
    raised = {signal: times for signal, times in recent.items() if times}
    seen = replace(state, alarms=alarms, raised=raised, first=first, dispersion=means, judged=state.judged + 1)
    return _with_hours(seen, windows, now) if state.is_by_hours else seen


def _with_hours(state: AlarmState, windows: Sequence[BatchWindow], now: datetime) -> AlarmState:
    batch = hours_of_week(windows[0].began, now)
    hours = state.hours - batch if windows[0].same_hours is None else state.hours | batch
    if all(window.same_hours is None for window in windows):
        return replace(state, hours=hours)
    since = state.compared_since or now
    return replace(state, compared=state.compared + 1, compared_since=since, hours=hours)


def hours_of_week(began: datetime, ended: datetime) -> frozenset[int]:
    """Those from one moment to another, counted from Monday, 0 o'clock UTC."""
    first = began.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    number = min(int((ended - first) / timedelta(hours=1)) + 1, 7 * 24)
    return frozenset((first.weekday() * 24 + first.hour + hour) % (7 * 24) for hour in range(number))


def _reference(window: BatchWindow, reference: Reference | None, state: AlarmState) -> Reference | None:
    return window.same_hours if state.is_by_hours else reference


def _judged(
    window: BatchWindow, reference: Reference | None, state: AlarmState, level: float = LEVEL
) -> list[SignalResult]:
    compared_with = _reference(window, reference, state)
    return judge(window.seen, compared_with, level, _scale(state, window), of_both=state.is_by_hours)


def _judged_for_news(
    window: BatchWindow,
    reference: Reference | None,
    state: AlarmState,
    level: float,
    recent: Mapping[Signal, Sequence[datetime]],
) -> list[SignalResult]:
    """Each signal at what its recent alarms have left of `level`."""
    by_alarms = {
        number: {one.signal: one for one in _judged(window, reference, state, level * REPEATED**number)}
        for number in {0, *map(len, recent.values())}
    }
    return [by_alarms[len(recent.get(signal, ()))][signal] for signal in by_alarms[0]]


def _calm(
    signal: Signal, state: AlarmState, windows: Sequence[BatchWindow], reference: Reference | None
) -> BatchWindow | None:
    """The window that ends an alarm: later batches alone, as many as raised it, and within the threshold that is shown.

    That threshold is the smaller one. So an alarm does not come and go while a signal is at the border of one.
    """
    alarm = state.alarms[signal]
    batches = min(max(alarm.batches, CALM), windows[-1].batches)
    window = next((one for one in windows if one.batches == batches and one.first > alarm.batch), None)
    if window is None or _reference(window, reference, state) is None:
        return None
    result = next(one for one in _judged(window, reference, state) if one.signal is signal)
    # Of a signal that the reference no longer has, nothing would ever end the alarm.
    return window if result.verdict in (Verdict.STEADY, Verdict.NO_REFERENCE) else None


def _scale(state: AlarmState, window: BatchWindow) -> dict[Signal, float]:
    """Dispersion of each signal as of before this batch: never below 1, nor below that of shorter windows."""
    return {
        signal: max([1.0, *(value for batches, value in means.items() if batches <= window.batches)])
        for signal, means in state.dispersion.items()
    }


def _dispersion(
    state: AlarmState, windows: Sequence[BatchWindow], reference: Reference | None, now: datetime
) -> dict[Signal, dict[int, float]]:
    means = {signal: dict(of_length) for signal, of_length in state.dispersion.items()}
    most = MOST_BY_HOURS if state.is_by_hours else MOST
    for window in windows:
        compared_with = _reference(window, reference, state)
        if window.before is None or compared_with is None:
            continue
        if state.is_by_hours:
            begins, weight = window.first, _weight_by_hours(state, now)
        else:
            begins = window.first - window.batches
            judged = min(windows[0].first, state.judged + 1)
            known = max(judged - 2 * window.batches, 0)  # batches that had such a window before
            weight = max(1 / MEMORY, 1 / (known + PRIOR + 1))
        for signal, value in dispersion(window.seen, window.before, compared_with, most).items():
            if signal in state.alarms or begins < state.first.get(signal, 0):
                continue  # a change is no sign that photos resemble each other
            mean = means.setdefault(signal, {}).get(window.batches, 1.0)
            means[signal][window.batches] = mean + weight * (value - mean)
    return means


def _weight_by_hours(state: AlarmState, now: datetime) -> float:
    """Of a batch in the running mean, which reaches back WEEKS: batches of a day say nothing of other days."""
    elapsed = now - state.compared_since if state.compared_since else timedelta(0)
    return max(elapsed / (WEEKS * WEEK) / max(state.compared, 1), 1 / (state.compared + PRIOR + 1))
