"""The batches of photos by which alarms are judged, as stored in the records.

Nothing is kept in memory: a restarted monitor continues after the last batch, and two monitors share their batches.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, Engine, RowMapping, and_, delete, func, select

from binwatch.bundle import Reference
from binwatch.records.tables import Count, DriftBatch, Slice
from binwatch.records.upsert import insert_into
from binwatch.reference import MIN_REFERENCE_BINS, effective_sample_size
from binwatch.settings import DriftReference
from monitor.drift.alarms import WINDOW_LENGTHS, AlarmState, BatchWindow, batch_level, budget_share, next_state
from monitor.drift.judge import MIN_PHOTOS
from monitor.drift.same_hours import draw_same_hours, hashed_id, make_same_hours_reference
from monitor.drift.windows import (
    LATEST_PHOTOS,
    MAX_WINDOW_PHOTOS,
    draw_photos,
    first_id_since,
    id_before_latest,
    read_samples,
)
from monitor.records import Records, RecordsDown, WritableRecords

logger = logging.getLogger(__name__)

MAX_BATCH_PHOTOS = 200
"""Maximum number of photos in a batch. If more were recorded since the last batch, a sample of them is drawn."""
MIN_BATCH_INTERVAL = timedelta(minutes=15)
"""Minimum time between two batches. Nobody acts on drift sooner, and the windows then cover at least two hours even at
100,000 photos an hour."""
MAX_SLICES_PER_CHECK = 50
"""Maximum number of slices whose batches are closed in one check. Of more slices, each check picks a random subset."""
_STATE = TypeAdapter(AlarmState)


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """One check for drift: the model, the time, and what its photos are compared with."""

    model: str
    reference: Reference | None
    """Reference in the model's bundle; None if the bundle has none."""
    now: datetime
    baseline: DriftReference = DriftReference.TRAINING

    @property
    def can_judge(self) -> bool:
        """Whether batches can be judged: with the same hours always, else once the reference is large enough."""
        if self.baseline is DriftReference.SAME_HOURS:
            return True
        return self.reference is not None and effective_sample_size(self.reference) >= MIN_REFERENCE_BINS


@dataclass(frozen=True, slots=True)
class LastBatch:
    """The last batch in the records."""

    closed_at: datetime
    state: AlarmState | None
    """None if this release cannot read it."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """A row of `drift_batches`, without the state that judging it yields."""

    model_version: str
    slice_id: int
    number: int
    last_count_id: int
    count_ids: list[int]
    began_at: datetime
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class _DueBatch:
    """A batch that is ready to be judged."""

    batch: _Batch
    windows: list[BatchWindow]
    state: AlarmState
    """State after the previous batch."""


def update_alarms(records: Records, writable: WritableRecords, check: DriftCheck, *, slices: int = 0) -> AlarmState:
    """Close a batch if enough photos are ready, and return the model's alarms. Raises RecordsDown.

    `slices` is the number of slices that share the budget.
    """
    _close_batch(records, writable, check, budget_share(slices, all_photos=True))
    return read_state(records, check.model, check.baseline)


def update_slice_alarms(
    records: Records, writable: WritableRecords, check: DriftCheck, slices: Mapping[int, str]
) -> dict[str, AlarmState]:
    """Close due batches of slices, and return the alarms by name. `slices` maps ids to names. Raises RecordsDown."""
    share = budget_share(len(slices), all_photos=False)
    for slice_id in random.sample(sorted(slices), min(len(slices), MAX_SLICES_PER_CHECK)):
        _close_batch(records, writable, check, share, slice_id)
    return read_slice_states(records, check.model, slices, check.baseline)


def read_last_batch(records: Records, model: str) -> LastBatch | None:
    """Read the last closed batch, whatever it was compared with; None if there is none. Raises RecordsDown."""
    rows = records.read(lambda connection: _latest_batches(connection, model, 1))
    return LastBatch(rows[0]["closed_at"], _parse_state(rows[0])) if rows else None


def has_other_slices(records: Records, model: str, slices: Collection[int], since: datetime) -> bool:
    """Return whether batches of slices that are not in `slices` were closed at `since` or later. Raises RecordsDown."""
    statement = (
        select(DriftBatch.number)
        .where(DriftBatch.model_version == model, DriftBatch.slice_id > 0, DriftBatch.slice_id.not_in(slices))
        .where(DriftBatch.closed_at >= since)
        .limit(1)
    )
    return records.read(lambda connection: connection.execute(statement).first()) is not None


def is_overdue(records: Records, check: DriftCheck) -> bool:
    """Return whether photos have been ready for a batch for MIN_BATCH_INTERVAL or longer. Raises RecordsDown.

    A running monitor checks more often than that. So if they have, none is running, or it cannot judge or write them.
    """
    return records.read(lambda connection: _is_overdue(connection, check))


def read_state(records: Records, model: str, baseline: DriftReference = DriftReference.TRAINING) -> AlarmState:
    """Read the state after the last batch in the records. Raises RecordsDown."""
    return records.read(lambda connection: _state_after(_latest_batches(connection, model, 1), baseline))


def read_slice_states(
    records: Records, model: str, slices: Mapping[int, str], baseline: DriftReference = DriftReference.TRAINING
) -> dict[str, AlarmState]:
    """Read the latest state of each slice, by name. `slices` maps ids to names. Raises RecordsDown."""
    of_slice = and_(DriftBatch.model_version == model, DriftBatch.slice_id == Slice.id)
    last_number = select(func.max(DriftBatch.number)).where(of_slice).correlate(Slice).scalar_subquery()
    statement = (
        select(DriftBatch.__table__)
        .join(Slice, and_(of_slice, DriftBatch.number == last_number))
        .where(Slice.id.in_(slices))
    )
    rows = records.read(lambda connection: connection.execute(statement).mappings().all()) if slices else []
    states = {row["slice_id"]: _state_after([row], baseline) for row in rows}
    return {name: states.get(slice_id, _state_after([], baseline)) for slice_id, name in slices.items()}


def _close_batch(
    records: Records, writable: WritableRecords, check: DriftCheck, share: float, slice_id: int = 0
) -> None:
    if not check.can_judge:
        return
    due = records.read(lambda connection: _find_due_batch(connection, check, slice_id))
    if due is None:
        return
    if check.baseline is DriftReference.SAME_HOURS:
        due = replace(due, windows=_add_same_hours(records, check, due.windows, slice_id))
    row, batch = _judge_batch(due, check.reference, share), due.batch
    writable.write(lambda engine: _insert(engine, row))
    with suppress(RecordsDown):  # already logged; the table grows until the deletion succeeds
        writable.write(lambda engine: _delete_old_batches(engine, batch))


def _add_same_hours(
    records: Records, check: DriftCheck, windows: Sequence[BatchWindow], slice_id: int
) -> list[BatchWindow]:
    """Return the windows with photos of the same hours of previous weeks. Reads twice: each read has a time limit."""
    starts = [window.start for window in windows]
    ids = records.read(lambda connection: draw_same_hours(connection, check.model, starts, check.now, slice_id))
    samples = records.read(lambda connection: read_samples(connection, check.model, ids, hashed_id))
    return [
        replace(window, previous=sample, same_hours_reference=make_same_hours_reference(sample, check.reference))
        for window, sample in zip(windows, samples, strict=True)
    ]


def _judge_batch(due: _DueBatch, reference: Reference | None, share: float) -> dict[str, object]:
    """Judge a batch and return its row for the records."""
    batch = due.batch
    level = batch_level(None if batch.number == 1 else batch.closed_at - batch.began_at, share)
    state = next_state(due.state, due.windows, reference, level, batch.closed_at)
    return asdict(batch) | {"state": _STATE.dump_python(state, mode="json")}


def _insert(engine: Engine, row: dict[str, object]) -> None:
    with engine.begin() as connection:
        # If another monitor has closed the batch of this number in the meantime, that one is kept.
        connection.execute(insert_into(connection, DriftBatch).on_conflict_do_nothing(), row)


def _delete_old_batches(engine: Engine, batch: _Batch) -> None:
    """Delete the batches that no window of a later batch includes."""
    is_old = (
        DriftBatch.model_version == batch.model_version,
        DriftBatch.slice_id == batch.slice_id,
        DriftBatch.number <= batch.number - WINDOW_LENGTHS[-1],
    )
    with engine.begin() as connection:
        connection.execute(delete(DriftBatch).where(*is_old))


def _find_due_batch(connection: Connection, check: DriftCheck, slice_id: int) -> _DueBatch | None:
    """Return the next batch; None if it is too early for one, or there are too few photos."""
    last = next(iter(_latest_batches(connection, check.model, 1, slice_id)), None)
    if last and timedelta(0) <= check.now - last["closed_at"] < MIN_BATCH_INTERVAL:
        return None
    batch = _collect_batch(connection, check, last, _newest_id(connection), slice_id)
    if batch is None:
        return None
    rows = _latest_batches(connection, check.model, WINDOW_LENGTHS[-1] - 1, slice_id)
    earlier = [_Batch(**{field.name: row[field.name] for field in fields(_Batch)}) for row in rows]
    windows = _read_windows(connection, [batch, *earlier], with_previous=check.baseline is DriftReference.TRAINING)
    return _DueBatch(batch, windows, _state_after(rows, check.baseline))


def _is_overdue(connection: Connection, check: DriftCheck) -> bool:
    last = next(iter(_latest_batches(connection, check.model, 1)), None)
    due_since = check.now - MIN_BATCH_INTERVAL
    if last and due_since - last["closed_at"] < MIN_BATCH_INTERVAL:
        return False
    later = first_id_since(connection, due_since)
    newest = _newest_id(connection) if later is None else later - 1
    return _collect_batch(connection, check, last, newest) is not None


def _newest_id(connection: Connection) -> int:
    return connection.execute(select(func.max(Count.id))).scalar() or 0


def _latest_batches(connection: Connection, model: str, limit: int, slice_id: int = 0) -> Sequence[RowMapping]:
    """Read the latest batches, the newest first."""
    statement = (
        select(DriftBatch.__table__)
        .where(DriftBatch.model_version == model, DriftBatch.slice_id == slice_id)
        .order_by(DriftBatch.number.desc())
        .limit(limit)
    )
    return connection.execute(statement).mappings().all()


def _state_after(rows: Sequence[RowMapping], baseline: DriftReference) -> AlarmState:
    """Return the state of the first row. If it has another baseline or there is no row, alarms start afresh."""
    state = _parse_state(rows[0]) if rows else None
    return state if state is not None and state.reference is baseline else AlarmState(reference=baseline)


def _parse_state(row: RowMapping) -> AlarmState | None:
    """Parse the state; None if it is damaged or of a release with other signals, which resets the alarms."""
    try:
        return _STATE.validate_python(row["state"])
    except ValidationError as error:
        logger.warning("drift: the stored alarm state cannot be read, so alarms are reset: %s", error)
        return None


def _collect_batch(
    connection: Connection, check: DriftCheck, last: RowMapping | None, newest: int, slice_id: int = 0
) -> _Batch | None:
    """Collect the photos since the last batch, up to the id `newest`; None if there are too few."""
    model = check.model
    after = last["last_count_id"] if last else id_before_latest(connection, newest, LATEST_PHOTOS, slice_id)
    photos: list[int] = []
    if newest - after >= MIN_PHOTOS:
        photos = draw_photos(connection, model, after, newest, MAX_BATCH_PHOTOS, slice_id)
    recent = id_before_latest(connection, newest, 4 * MAX_BATCH_PHOTOS, slice_id)
    if len(photos) < MIN_PHOTOS and after < recent:
        # If another model has counted many photos since, a draw from all of them finds hardly any of this model's.
        photos = draw_photos(connection, model, recent, newest, MAX_BATCH_PHOTOS, slice_id)
    if len(photos) < MIN_PHOTOS:
        return None
    if last:
        return _Batch(model, slice_id, last["number"] + 1, newest, photos, last["closed_at"], check.now)
    began_at = connection.execute(select(Count.recorded_at).where(Count.id == photos[0])).scalar_one()
    return _Batch(model, slice_id, 1, newest, photos, began_at, check.now)


def _read_windows(connection: Connection, batches: Sequence[_Batch], *, with_previous: bool) -> list[BatchWindow]:
    """Read the windows of every length for which there are enough batches, and optionally the previous window of each.

    `batches` are in descending order of their numbers.
    """

    def fits(length: int) -> bool:
        photos = sum(len(batch.count_ids) for batch in batches[:length])
        return length <= len(batches) and photos <= MAX_WINDOW_PHOTOS

    lengths = [length for length in WINDOW_LENGTHS if fits(length)]
    with_pair = [length for length in lengths if with_previous and fits(2 * length)]
    parts = [batches[:length] for length in lengths] + [batches[length : 2 * length] for length in with_pair]
    ids = [[photo_id for batch in part for photo_id in batch.count_ids] for part in parts]
    samples = read_samples(connection, batches[0].model_version, ids)
    previous = dict(zip(with_pair, samples[len(lengths) :], strict=True))
    return [
        BatchWindow(length, batches[length - 1].number, batches[length - 1].began_at, sample, previous.get(length))
        for length, sample in zip(lengths, samples[: len(lengths)], strict=True)
    ]
