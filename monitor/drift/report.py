"""The drift report, which the metrics, the table and the page show: the judged windows and the alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from binwatch.bundle import Reference
from binwatch.errors import OutageError
from binwatch.reference import MIN_REFERENCE_BINS, Signal, effective_sample_size
from binwatch.settings import DriftReference
from binwatch.slicing import Slicing
from monitor.drift.alarms import Alarm, AlarmState
from monitor.drift.batches import (
    MIN_BATCH_INTERVAL,
    DriftCheck,
    has_other_slices,
    is_overdue,
    read_last_batch,
    read_slice_states,
    read_state,
    update_alarms,
    update_slice_alarms,
)
from monitor.drift.distributions import Distribution, distributions
from monitor.drift.estimate import estimated_accuracy
from monitor.drift.judge import SignalResult, judge
from monitor.drift.windows import PhotoSample, Window, read_window
from monitor.formatting import moment
from monitor.records import Records, RecordsDown, WritableRecords
from monitor.totals import read_model_in_use, slice_names

_SLICE_ACTIVITY_PERIOD = timedelta(days=1)
"""A slice that closed no batch in this period before the last batch of all photos counts as no longer monitored."""


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One judged window. Shares are 0 to 1, and None if there are no photos to compute them from."""

    window: Window
    photos: int
    compared: int
    """Number of photos with an expected quantity."""
    agreement: float | None
    """Share of the compared photos whose count is the expected quantity."""
    estimated: float | None
    """Estimated accuracy of all photos, compared or not."""
    results: list[SignalResult]
    """One per signal, in the order of Signal."""
    distributions: dict[Signal, Distribution] = field(default_factory=dict)
    """The distributions behind the results, for the signals that have one."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All windows and alarms at one time, for the model in use."""

    model: str | None
    """None while nothing is recorded."""
    reference: Reference | None
    """Reference in the model's bundle, which windows are compared with."""
    windows: list[WindowReport]
    at: datetime
    baseline: DriftReference = DriftReference.TRAINING
    """What alarms compare photos with according to the settings. Stored alarms may differ: `state.reference`."""
    outage: str | None = None
    """Why the bundle cannot be fetched at the moment; None if it can, or there is none."""
    state: AlarmState = field(default_factory=AlarmState)
    """Alarm state of the photos of all slices together."""
    slices: dict[str, AlarmState] = field(default_factory=dict)
    """Alarm state of each slice, by name."""
    problem: str | None = None
    """Why the alarms are out of date; None if they are current."""
    closed_at: datetime | None = None
    """When the last batch of the stored alarms was closed; None before the first."""
    has_hidden_slices: bool = False
    """Whether batches were recently closed for slices that these settings do not define."""

    @property
    def reference_bins(self) -> int | None:
        """Number of bins in the reference."""
        return effective_sample_size(self.reference) if self.reference else None

    @property
    def alarms(self) -> dict[Signal, Alarm]:
        """Raised alarms of the photos of all slices together."""
        return self.state.alarms

    @property
    def all_alarms(self) -> list[tuple[str | None, Signal, Alarm]]:
        """Raised alarms with the name of their slice: first those of all photos, whose name is None."""
        states: list[tuple[str | None, AlarmState]] = [(None, self.state), *self.slices.items()]
        return [(name, signal, alarm) for name, state in states for signal, alarm in state.alarms.items()]

    @property
    def has_small_reference(self) -> bool:
        """Whether the reference has too few bins to judge by."""
        return self.reference_bins is not None and self.reference_bins < MIN_REFERENCE_BINS


def make_report(
    records: Records,
    reference_of: Callable[[str], Reference | None],
    baseline: DriftReference = DriftReference.TRAINING,
    slicing: Slicing | None = None,
) -> DriftReport:
    """Judge the windows, and read the alarms that a monitor has stored. Writes nothing. Raises RecordsDown."""
    report = _judge_windows(records, reference_of, baseline)
    if (model := report.model) is None:
        return report
    slices = records.read(lambda connection: slice_names(connection, slicing))
    last = read_last_batch(records, model)
    state = (last.state if last else None) or report.state
    check = _check(report, model)
    # Photos wait while there is no reference. Whether there is one is unknown while the bundle cannot be fetched; a
    # batch that was compared with the reference shows that there is.
    has_used_reference = last is not None and last.state is not None and not last.state.uses_same_hours
    must_judge = has_used_reference or report.outage is not None or check.can_judge
    return replace(
        report,
        state=state,
        slices=read_slice_states(records, model, slices, state.reference),
        problem=_overdue_problem(report.at) if must_judge and is_overdue(records, check) else None,
        closed_at=last.closed_at if last else None,
        has_hidden_slices=last is not None
        and has_other_slices(records, model, slices, last.closed_at - _SLICE_ACTIVITY_PERIOD),
    )


def update_and_report(
    records: Records,
    writable: WritableRecords,
    reference_of: Callable[[str], Reference | None],
    baseline: DriftReference = DriftReference.TRAINING,
    slicing: Slicing | None = None,
) -> DriftReport:
    """Judge the windows, and close the batches that are due. Only a running monitor may call this.

    Raises RecordsDown if the records cannot be read.
    """
    report = _judge_windows(records, reference_of, baseline)
    if (model := report.model) is None:
        return report
    slices = records.read(lambda connection: slice_names(connection, slicing))
    check, problem = _check(report, model), report.outage
    if problem is None:
        try:
            state = update_alarms(records, writable, check, slices=len(slices))
            return replace(report, state=state, slices=update_slice_alarms(records, writable, check, slices))
        except RecordsDown as error:
            problem = str(error)
    state, slice_states = read_state(records, model, baseline), read_slice_states(records, model, slices, baseline)
    return replace(report, state=state, slices=slice_states, problem=problem)


def _judge_windows(
    records: Records, reference_of: Callable[[str], Reference | None], baseline: DriftReference
) -> DriftReport:
    now = datetime.now(UTC)

    def read(connection: Connection) -> tuple[str | None, dict[Window, PhotoSample]]:
        in_use = read_model_in_use(connection)
        if in_use is None:
            return None, {}
        return in_use.version, {window: read_window(connection, window, in_use.version, now) for window in Window}

    model, samples = records.read(read)
    reference, outage = None, None
    try:
        reference = reference_of(model) if model is not None else None
    except OutageError as error:
        outage = str(error)
    windows = [_judge_window(window, sample, reference) for window, sample in samples.items()]
    return DriftReport(model, reference, windows, now, baseline, outage, AlarmState(reference=baseline))


def _check(report: DriftReport, model: str) -> DriftCheck:
    return DriftCheck(model, report.reference, report.at, report.baseline)


def _overdue_problem(now: datetime) -> str:
    return (
        f"photos recorded before {moment(now - MIN_BATCH_INTERVAL)} have not been judged. Start the monitor (python -m"
        " monitor serve), or look into its log"
    )


def _judge_window(window: Window, sample: PhotoSample, reference: Reference | None) -> WindowReport:
    compared = len(sample.expected)
    return WindowReport(
        window=window,
        photos=sample.size,
        compared=compared,
        agreement=sample.agreed / compared if compared else None,
        estimated=estimated_accuracy(sample, reference),
        results=judge(sample, reference),
        distributions=distributions(sample, reference),
    )
