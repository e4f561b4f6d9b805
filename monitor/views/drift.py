"""Drift: the alarms, and for each window the verdict on each signal with its distributions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from binwatch.reference import Signal
from binwatch.settings import DriftReference
from monitor.drift.distributions import Distribution
from monitor.drift.judge import MIN_PHOTOS, Verdict
from monitor.drift.report import DriftReport, WindowReport
from monitor.drift.windows import Window


class State(StrEnum):
    """The state of drift, all signals together."""

    STEADY = "steady"
    DRIFTED = "drifted"
    """An alarm is raised."""
    TOO_FEW = "too_few"
    """No window holds enough photos to be judged."""
    NO_REFERENCE = "no_reference"
    SMALL_REFERENCE = "small_reference"
    NOTHING = "nothing"
    """Nothing is recorded yet."""
    COLLECTING = "collecting"
    """There are no alarms yet: too few photos of the same hours have been collected."""
    UNWRITABLE = "unwritable"
    """The batches of photos that alarms follow from cannot be read, or cannot be written to the records."""
    UNKNOWN = "unknown"
    """The monitor has just started, or its last look failed; the next one comes within a minute."""


class SignalView(BaseModel):
    """One signal in one window."""

    signal: Signal
    verdict: Verdict
    photos: int
    """Photos of the window that have a value of the signal."""
    distance: float | None
    threshold: float | None
    """The signal has drifted if its distance is above."""
    distribution: Distribution | None
    """Reference and window side by side; None where there is nothing to compare."""


class WindowView(BaseModel):
    """One window."""

    window: Window
    photos: int
    """Photos that were looked at, one of each bin."""
    compared: int
    agreement: float | None
    estimated: float | None
    """Estimated accuracy, 0 to 1."""
    signals: list[SignalView]


class AlarmView(BaseModel):
    """A signal whose alarm is raised."""

    signal: Signal
    since: datetime
    """When the alarm was raised."""
    began: datetime
    """The photos that raised it were recorded from here on."""
    photos: int
    """The number of these photos."""
    slice: str | None = None
    """The slice that has moved; None: all photos together."""


class SameHoursView(BaseModel):
    """The hours of the week that alarms can compare with the weeks before."""

    hours: list[int]
    """Hours of the week whose last photos could be compared; 0: Monday, 0 to 1 o'clock UTC."""
    alarms_from: datetime | None
    """When alarms can be raised; None while no batch of photos could be compared."""


class DriftView(BaseModel):
    """The alarms and every window for the model in use, as of the last look."""

    state: State
    reference: DriftReference | None
    """What alarms compare photos with. Windows are compared with the model's own reference always."""
    same_hours: SameHoursView | None
    """None if alarms compare with the model's own reference."""
    model: str | None
    at: datetime | None
    """When the monitor looked."""
    least_photos: int = MIN_PHOTOS
    """Photos that a window needs to be judged."""
    alarms: list[AlarmView]
    """The oldest first; those of slices after those of all photos."""
    windows: list[WindowView]


class DriftInBrief(BaseModel):
    """Drift for the overview."""

    state: State
    at: datetime | None
    window: Window | None
    """The shortest window with a signal beyond its threshold, or else the shortest that could be judged."""
    photos: int
    """Photos of that window."""
    signals: list[Signal]
    """Signals whose alarm is raised."""
    since: datetime | None = None
    """When the oldest of these alarms was raised."""
    beyond: list[Signal] = []
    """Signals beyond their threshold in that window, alarm or not."""
    reference: DriftReference = DriftReference.TRAINING
    """What alarms compare photos with."""
    slices: list[str] = []
    """Those with an alarm of their own."""


def view_drift(report: DriftReport | None) -> DriftView:
    """A report as people and scripts read it; None before there is one."""
    return DriftView(
        state=_state(report),
        reference=report.state.reference if report else None,
        same_hours=SameHoursView(hours=sorted(report.state.hours), alarms_from=report.state.alarms_from)
        if report and report.state.uses_same_hours
        else None,
        model=report.model if report else None,
        at=report.at if report else None,
        alarms=_alarms(report),
        windows=[
            WindowView(
                window=window.window,
                photos=window.photos,
                compared=window.compared,
                agreement=window.agreement,
                estimated=window.estimated,
                signals=[
                    SignalView(**asdict(result), distribution=window.distributions.get(result.signal))
                    for result in window.results
                ],
            )
            for window in (report.windows if report else [])
        ],
    )


def brief_drift(report: DriftReport | None) -> DriftInBrief:
    """A report for the overview; None before there is one."""
    state = _state(report)
    windows = report.windows if report else []
    telling = [window for window in windows if _drifted(window)] or [window for window in windows if _judged(window)]
    window = telling[0] if telling else None
    alarms = _alarms(report)
    return DriftInBrief(
        state=state,
        at=report.at if report else None,
        window=window.window if window else None,
        photos=window.photos if window else 0,
        signals=list(dict.fromkeys(alarm.signal for alarm in alarms)),
        since=min((alarm.since for alarm in alarms), default=None),
        beyond=_drifted(window) if window else [],
        reference=report.state.reference if report else DriftReference.TRAINING,
        slices=list(dict.fromkeys(alarm.slice for alarm in alarms if alarm.slice is not None)),
    )


def _alarms(report: DriftReport | None) -> list[AlarmView]:
    found = [
        AlarmView(signal=signal, since=alarm.since, began=alarm.began, photos=alarm.photos, slice=name)
        for name, signal, alarm in (report.all_alarms if report else [])
    ]
    return sorted(found, key=lambda alarm: (alarm.slice is not None, alarm.since))


def _state(report: DriftReport | None) -> State:
    if report is None:
        return State.UNKNOWN
    if report.model is None:
        return State.NOTHING
    if report.problem is not None:  # of a bundle that cannot be fetched now, nobody knows what it says
        return State.DRIFTED if report.all_alarms else State.UNWRITABLE
    by_hours = report.state.uses_same_hours
    if not (by_hours or report.reference):
        return State.NO_REFERENCE
    if report.has_small_reference and not by_hours:
        return State.SMALL_REFERENCE
    if report.all_alarms:
        return State.DRIFTED
    if by_hours:
        return State.COLLECTING if report.state.is_collecting(report.at) else State.STEADY
    return State.STEADY if any(_judged(window) for window in report.windows) else State.TOO_FEW


def _drifted(window: WindowReport) -> list[Signal]:
    return [one.signal for one in window.results if one.verdict is Verdict.DRIFTED]


def _judged(window: WindowReport) -> bool:
    return any(one.verdict in (Verdict.STEADY, Verdict.DRIFTED) for one in window.results)
