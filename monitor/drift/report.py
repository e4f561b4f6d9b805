"""All windows, judged, and the alarms: what the metrics, the table and the page say of drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from binwatch.bundle import Reference
from binwatch.reference import ENOUGH, Signal, independent
from binwatch.settings import DriftReference
from binwatch.slicing import Slicing
from monitor.drift.alarms import Alarm, AlarmState
from monitor.drift.batches import last_state, last_states, watch, watch_slices
from monitor.drift.distributions import Distribution, distributions
from monitor.drift.estimate import estimated_accuracy
from monitor.drift.judge import SignalResult, judge
from monitor.drift.windows import PhotoSample, Window, read_window
from monitor.records import Records, RecordsDown, WritableRecords
from monitor.totals import read_model_in_use, slice_names


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
    has_reference: bool
    windows: list[WindowReport]
    at: datetime
    bins: int | None = None
    """Bins that the reference is of."""
    state: AlarmState = field(default_factory=AlarmState)
    """Alarms of the photos of all slices together, and what they follow from."""
    slices: dict[str, AlarmState] = field(default_factory=dict)
    """The same of each slice."""
    problem: str | None = None
    """Why the alarms are only those of the last batches that could be kept; None if they are of now."""

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
        return self.bins is not None and self.bins < ENOUGH


def make_report(
    records: Records,
    writable: WritableRecords,
    reference_of: Callable[[str], Reference | None],
    by: DriftReference = DriftReference.TRAINING,
    slicing: Slicing | None = None,
) -> DriftReport:
    """Read the windows and judge them, and watch over the alarms. Raises RecordsDown if the records cannot be read."""
    now = datetime.now(UTC)

    def read(connection: Connection) -> tuple[str | None, dict[Window, PhotoSample]]:
        in_use = read_model_in_use(connection)
        if in_use is None:
            return None, {}
        return in_use.version, {window: read_window(connection, window, in_use.version, now) for window in Window}

    model, found = records.read(read)
    reference = reference_of(model) if model is not None else None
    windows = [_window(window, seen, reference) for window, seen in found.items()]
    bins = independent(reference) if reference else None
    report = DriftReport(model, reference is not None, windows, now, bins, AlarmState(reference=by))
    if model is None:
        return report
    slices = records.read(lambda connection: slice_names(connection, slicing))
    try:
        state = watch(records, writable, model, reference, now, by, slices=len(slices))
        return replace(report, state=state, slices=watch_slices(records, writable, model, reference, now, slices, by))
    except RecordsDown as error:
        state, of_slices = last_state(records, model, by), last_states(records, model, slices, by)
        return replace(report, state=state, slices=of_slices, problem=str(error))


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
