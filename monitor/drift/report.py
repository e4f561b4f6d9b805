"""All windows, judged, and the alarms: what the metrics, the table and the page say of drift."""

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
    LEAST,
    Look,
    is_overdue,
    last_kept,
    last_state,
    last_states,
    watch,
    watch_slices,
    watches_other_slices,
)
from monitor.drift.distributions import Distribution, distributions
from monitor.drift.estimate import estimated_accuracy
from monitor.drift.judge import SignalResult, judge
from monitor.drift.windows import PhotoSample, Window, read_window
from monitor.formatting import moment
from monitor.records import Records, RecordsDown, WritableRecords
from monitor.totals import read_model_in_use, slice_names

_LATELY = timedelta(days=1)
"""Before the last batch of all photos: slices that closed none since are no longer watched."""


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One window. Shares are 0 to 1, and None where there is nothing to take a share of."""

    window: Window
    photos: int
    compared: int
    """How many of the photos have an expected quantity."""
    agreement: float | None
    """Share of the compared photos whose count is the expected quantity."""
    estimated: float | None
    """Estimated accuracy of all the photos, compared or not."""
    judgements: list[SignalResult]
    distributions: dict[Signal, Distribution] = field(default_factory=dict)
    """What the judgements are about, for those signals that can be shown."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Every window at one moment, for the model in use; None while nothing is recorded."""

    model: str | None
    reference: Reference | None
    """That of the model's bundle, which windows are compared with."""
    windows: list[WindowReport]
    at: datetime
    by: DriftReference = DriftReference.TRAINING
    """What alarms compare photos with by the settings. Alarms that were read may follow another: `state.reference`."""
    outage: str | None = None
    """Why the bundle cannot be fetched for now; None if it can, or there is none."""
    state: AlarmState = field(default_factory=AlarmState)
    """Alarms of the photos of all slices together, and what they follow from."""
    slices: dict[str, AlarmState] = field(default_factory=dict)
    """The same of each slice."""
    problem: str | None = None
    """Why the alarms are only those of the last batches that could be kept; None if they are of now."""
    closed_at: datetime | None = None
    """When the last batch of the alarms that were read was closed; None before the first."""
    hides_slices: bool = False
    """Whether batches of slices were closed lately that these settings have no rule for."""

    @property
    def bins(self) -> int | None:
        """Bins that the reference is of."""
        return effective_sample_size(self.reference) if self.reference else None

    @property
    def alarms(self) -> dict[Signal, Alarm]:
        """Those that are raised, of the photos of all slices together."""
        return self.state.alarms

    @property
    def every_alarm(self) -> list[tuple[str | None, Signal, Alarm]]:
        """Those of all photos, with None, then those of slices."""
        parts: list[tuple[str | None, AlarmState]] = [(None, self.state), *self.slices.items()]
        return [(name, signal, alarm) for name, state in parts for signal, alarm in state.alarms.items()]

    @property
    def is_small(self) -> bool:
        """Whether the reference is of too few bins to judge by."""
        return self.bins is not None and self.bins < MIN_REFERENCE_BINS


def make_report(
    records: Records,
    reference_of: Callable[[str], Reference | None],
    by: DriftReference = DriftReference.TRAINING,
    slicing: Slicing | None = None,
) -> DriftReport:
    """Judge the windows, and read the alarms as a monitor has kept them. Writes nothing. Raises RecordsDown."""
    report = _judge_windows(records, reference_of, by)
    if (model := report.model) is None:
        return report
    slices = records.read(lambda connection: slice_names(connection, slicing))
    kept = last_kept(records, model)
    state = (kept.state if kept else None) or report.state
    look = _look(report, model)
    # Without a reference, photos wait for one. That there is one shows in a batch that was compared with it, too; while
    # the bundle cannot be fetched, it is not known.
    was_compared = kept is not None and kept.state is not None and not kept.state.is_by_hours
    is_judged = was_compared or report.outage is not None or look.can_judge
    return replace(
        report,
        state=state,
        slices=last_states(records, model, slices, state.reference),
        problem=_overdue(report.at) if is_judged and is_overdue(records, look) else None,
        closed_at=kept.closed_at if kept else None,
        hides_slices=kept is not None and watches_other_slices(records, model, slices, kept.closed_at - _LATELY),
    )


def watch_and_report(
    records: Records,
    writable: WritableRecords,
    reference_of: Callable[[str], Reference | None],
    by: DriftReference = DriftReference.TRAINING,
    slicing: Slicing | None = None,
) -> DriftReport:
    """Judge the windows, and close the batches that are due: what a monitor does at each look, and nothing else may.

    Raises RecordsDown if the records cannot be read.
    """
    report = _judge_windows(records, reference_of, by)
    if (model := report.model) is None:
        return report
    slices = records.read(lambda connection: slice_names(connection, slicing))
    look, problem = _look(report, model), report.outage
    if problem is None:
        try:
            state = watch(records, writable, look, slices=len(slices))
            return replace(report, state=state, slices=watch_slices(records, writable, look, slices))
        except RecordsDown as error:
            problem = str(error)
    state, of_slices = last_state(records, model, by), last_states(records, model, slices, by)
    return replace(report, state=state, slices=of_slices, problem=problem)


def _judge_windows(
    records: Records, reference_of: Callable[[str], Reference | None], by: DriftReference
) -> DriftReport:
    now = datetime.now(UTC)

    def read(connection: Connection) -> tuple[str | None, dict[Window, PhotoSample]]:
        in_use = read_model_in_use(connection)
        if in_use is None:
            return None, {}
        return in_use.version, {window: read_window(connection, window, in_use.version, now) for window in Window}

    model, found = records.read(read)
    reference, outage = None, None
    try:
        reference = reference_of(model) if model is not None else None
    except OutageError as error:
        outage = str(error)
    windows = [_window(window, seen, reference) for window, seen in found.items()]
    return DriftReport(model, reference, windows, now, by, outage, AlarmState(reference=by))


def _look(report: DriftReport, model: str) -> Look:
    return Look(model, report.reference, report.at, report.by)


def _overdue(now: datetime) -> str:
    return (
        f"photos recorded before {moment(now - LEAST)} have not been judged. Start the monitor (python -m monitor"
        " serve), or look into its log"
    )


def _window(window: Window, seen: PhotoSample, reference: Reference | None) -> WindowReport:
    compared = len(seen.expected)
    return WindowReport(
        window=window,
        photos=seen.photos,
        compared=compared,
        agreement=seen.agreed / compared if compared else None,
        estimated=estimated_accuracy(seen, reference),
        judgements=judge(seen, reference),
        distributions=distributions(seen, reference),
    )
