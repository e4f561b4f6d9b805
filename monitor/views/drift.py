"""Drift: the raised alarms, and the verdict and distributions of each signal in each window."""

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
    """State of drift over all signals."""

    STEADY = "steady"
    DRIFTED = "drifted"
    """An alarm is raised."""
    TOO_FEW = "too_few"
    """No window has enough photos."""
    NO_REFERENCE = "no_reference"
    SMALL_REFERENCE = "small_reference"
    NOTHING = "nothing"
    """Nothing is recorded yet."""
    COLLECTING = "collecting"
    """Alarms cannot be raised yet, since too few photos of the same hours have been collected."""
    UNWRITABLE = "unwritable"
    """Alarms are out of date: batches of photos cannot be read, judged or written, or the bundle cannot be fetched."""
    UNKNOWN = "unknown"
    """The monitor has just started, or its last drift report failed; it tries again at the next interval."""


class SignalView(BaseModel):
    """One signal in one window."""

    signal: Signal
    verdict: Verdict
    photos: int
    """Photos of the window with a value of the signal."""
    distance: float | None
    threshold: float | None
    """The signal has drifted if its distance exceeds the threshold."""
    distribution: Distribution | None
    """Distributions of the reference and the window; None if they cannot be compared."""


class WindowView(BaseModel):
    """One window."""

    window: Window
    photos: int
    """Photos read, one per bin."""
    compared: int
    agreement: float | None
    estimated: float | None
    """Estimated accuracy, 0 to 1."""
    signals: list[SignalView]


class AlarmView(BaseModel):
    """A raised alarm of one signal."""

    signal: Signal
    since: datetime
    """When the alarm was raised."""
    began: datetime
    """When the first of the photos that raised the alarm was recorded."""
    photos: int
    """Number of photos that raised the alarm."""
    slice: str | None = None
    """Slice that has drifted; None for all photos together."""


class SameHoursView(BaseModel):
    """Hours of the week that alarms can compare with the same hours of earlier weeks."""

    hours: list[int]
    """Hours of the week whose latest photos could be compared; 0 is Monday, 00:00 to 01:00 UTC."""
    alarms_from: datetime | None
    """When alarms can be raised first; None if no batch of photos could be compared yet."""


class DriftView(BaseModel):
    """Alarms and windows of the model in use, as of the latest drift report."""

    state: State
    reference: DriftReference | None
    """What alarms compare photos with. Windows are always compared with the model's own reference."""
    same_hours: SameHoursView | None
    """None if alarms compare photos with the model's own reference."""
    model: str | None
    at: datetime | None
    """When the drift report was made."""
    least_photos: int = MIN_PHOTOS
    """Minimum number of photos for a verdict on a window."""
    alarms: list[AlarmView]
    """Alarms of all photos, then alarms of slices, each oldest first."""
    windows: list[WindowView]


class DriftSummary(BaseModel):
    """Drift, summarised for the overview."""

    state: State
    at: datetime | None
    window: Window | None
    """The shortest window with a signal beyond its threshold, or else the shortest window with a verdict."""
    photos: int
    """Photos of that window."""
    signals: list[Signal]
    """Signals with a raised alarm."""
    since: datetime | None = None
    """When the oldest of these alarms was raised."""
    beyond: list[Signal] = []
    """Signals beyond their threshold in that window, with or without an alarm."""
    reference: DriftReference = DriftReference.TRAINING
    """What alarms compare photos with."""
    slices: list[str] = []
    """Slices with an alarm of their own."""


def view_drift(report: DriftReport | None) -> DriftView:
    """Return the view of a drift report; `report` is None before the first one, and after a failed one."""
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
                    SignalView(**asdict(judgement), distribution=window.distributions.get(judgement.signal))
                    for judgement in window.results
                ],
            )
            for window in (report.windows if report else [])
        ],
    )


def summarise_drift(report: DriftReport | None) -> DriftSummary:
    """Return the summary of a drift report; `report` is None before the first one, and after a failed one."""
    windows = report.windows if report else []
    candidates = [window for window in windows if _drifted_signals(window)]
    candidates = candidates or [window for window in windows if _has_verdict(window)]
    window = candidates[0] if candidates else None
    alarms = _alarms(report)
    return DriftSummary(
        state=_state(report),
        at=report.at if report else None,
        window=window.window if window else None,
        photos=window.photos if window else 0,
        signals=list(dict.fromkeys(alarm.signal for alarm in alarms)),
        since=min((alarm.since for alarm in alarms), default=None),
        beyond=_drifted_signals(window) if window else [],
        reference=report.state.reference if report else DriftReference.TRAINING,
        slices=list(dict.fromkeys(alarm.slice for alarm in alarms if alarm.slice is not None)),
    )


def _alarms(report: DriftReport | None) -> list[AlarmView]:
    alarms = [
        AlarmView(signal=signal, since=alarm.since, began=alarm.began, photos=alarm.photos, slice=name)
        for name, signal, alarm in (report.all_alarms if report else [])
    ]
    return sorted(alarms, key=lambda alarm: (alarm.slice is not None, alarm.since))


def _state(report: DriftReport | None) -> State:
    if report is None:
        return State.UNKNOWN
    if report.model is None:
        return State.NOTHING
    # Check this before the reference, which is unknown if the problem is that the bundle cannot be fetched.
    if report.problem is not None:
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
    return State.STEADY if any(_has_verdict(window) for window in report.windows) else State.TOO_FEW


def _drifted_signals(window: WindowReport) -> list[Signal]:
    return [judgement.signal for judgement in window.results if judgement.verdict is Verdict.DRIFTED]


def _has_verdict(window: WindowReport) -> bool:
    return any(judgement.verdict in (Verdict.STEADY, Verdict.DRIFTED) for judgement in window.results)
