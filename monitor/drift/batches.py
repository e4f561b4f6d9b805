"""The batches of photos that alarms are judged by, as the records keep them.

Nothing is kept in memory: a monitor that is started again continues after the last batch, and so do two.
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
from monitor.drift.alarms import SPANS, AlarmState, BatchWindow, level_of, next_state, share_of
from monitor.drift.judge import MIN_PHOTOS
from monitor.drift.same_hours import any_week, draw_same_hours, make
from monitor.drift.windows import (
    LATEST,
    SAMPLE,
    PhotoSample,
    before_latest,
    draw_photos,
    first_since,
    read_samples,
)
from monitor.records import Records, RecordsDown, WritableRecords

logger = logging.getLogger(__name__)

BATCH = 200
"""Most photos of a batch. Of more that came since the last batch, so many are drawn."""
LEAST = timedelta(minutes=15)
"""Shortest time from one batch to the next. Nobody acts sooner on drift, and windows reach back two hours then also at
100,000 photos an hour."""
SLICES = 50
"""Slices that a look closes batches of, at most; of more, others at each look."""
_STATE = TypeAdapter(AlarmState)


@dataclass(frozen=True, slots=True)
class Look:
    """One look for drift: at which model, when, and what it compares photos with."""

    model: str
    reference: Reference | None
    """That of the model's bundle; None if the bundle has none."""
    at: datetime
    by: DriftReference = DriftReference.TRAINING

    @property
    def can_judge(self) -> bool:
        """Whether there is a reference to judge batches by; until there is, photos wait for it."""
        if self.by is DriftReference.SAME_HOURS:
            return True
        return self.reference is not None and effective_sample_size(self.reference) >= MIN_REFERENCE_BINS


@dataclass(frozen=True, slots=True)
class Kept:
    """What the records keep of the last batch."""

    closed_at: datetime
    state: AlarmState | None
    """None if this release cannot read it."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a row of `drift_batches` says before it is judged."""

    model_version: str
    slice_id: int
    number: int
    last_count_id: int
    count_ids: list[int]
    began_at: datetime
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class _Due:
    """A batch that can be judged, and what it takes."""

    batch: _Batch
    windows: list[BatchWindow]
    state: AlarmState
    """After the batch before."""


def watch(records: Records, writable: WritableRecords, look: Look, *, slices: int = 0) -> AlarmState:
    """Close a batch if there are photos for one, and return the alarms of the model. Raises RecordsDown.

    `slices`: how many the budget is shared with.
    """
    _close(records, writable, look, share_of(slices, whole=True))
    return last_state(records, look.model, look.by)


def watch_slices(
    records: Records, writable: WritableRecords, look: Look, slices: Mapping[int, str]
) -> dict[str, AlarmState]:
    """The same for each slice, by its id and its name. Raises RecordsDown."""
    share = share_of(len(slices), whole=False)
    for slice_id in random.sample(sorted(slices), min(len(slices), SLICES)):
        _close(records, writable, look, share, slice_id)
    return last_states(records, look.model, slices, look.by)


def last_kept(records: Records, model: str) -> Kept | None:
    """The last batch that was closed, whatever it was compared with; None before the first. Raises RecordsDown."""
    rows = records.read(lambda connection: _last(connection, model, 1))
    return Kept(rows[0]["closed_at"], _read_state(rows[0])) if rows else None


def watches_other_slices(records: Records, model: str, slices: Collection[int], since: datetime) -> bool:
    """Whether batches of other slices than these were closed `since` then. Raises RecordsDown."""
    others = DriftBatch.model_version == model, DriftBatch.slice_id > 0, DriftBatch.slice_id.not_in(slices)
    found = select(DriftBatch.number).where(*others, DriftBatch.closed_at >= since).limit(1)
    return records.read(lambda connection: connection.execute(found).first()) is not None


def is_overdue(records: Records, look: Look) -> bool:
    """Whether a batch could have been closed LEAST ago, which is longer than from one look of a monitor to the next.

    Then none looks, or it cannot judge or keep what it sees. Raises RecordsDown.
    """
    return records.read(lambda connection: _is_overdue(connection, look))


def last_state(records: Records, model: str, by: DriftReference = DriftReference.TRAINING) -> AlarmState:
    """What is known after the last batch that could be kept. Raises RecordsDown."""
    return records.read(lambda connection: _state_of(_last(connection, model, 1), by))


def last_states(
    records: Records, model: str, slices: Mapping[int, str], by: DriftReference = DriftReference.TRAINING
) -> dict[str, AlarmState]:
    """The same for each slice, by its id and its name. Raises RecordsDown."""
    of_slice = and_(DriftBatch.model_version == model, DriftBatch.slice_id == Slice.id)
    last = select(func.max(DriftBatch.number)).where(of_slice).correlate(Slice).scalar_subquery()
    found = select(DriftBatch.__table__).join(Slice, and_(of_slice, DriftBatch.number == last))
    found = found.where(Slice.id.in_(slices))
    rows = records.read(lambda connection: connection.execute(found).mappings().all()) if slices else []
    states = {row["slice_id"]: _state_of([row], by) for row in rows}
    return {name: states.get(slice_id, _state_of([], by)) for slice_id, name in slices.items()}


def _close(records: Records, writable: WritableRecords, look: Look, share: float, slice_id: int = 0) -> None:
    if not look.can_judge:
        return
    due = records.read(lambda connection: _next(connection, look, slice_id))
    if due is not None and look.by is DriftReference.SAME_HOURS:
        began = [window.began for window in due.windows]
        # Two reads more, since each has to come to an end in time.
        drawn = records.read(lambda connection: draw_same_hours(connection, look.model, began, look.at, slice_id))
        photos = records.read(lambda connection: read_samples(connection, look.model, drawn, any_week))
        due = _beside_same_hours(due, photos, look.reference)
    if due is not None:
        row, batch = _judged(due, look.reference, share), due.batch
        writable.write(lambda engine: _insert(engine, row))
        with suppress(RecordsDown):  # which is logged: the table grows until it can be done
            writable.write(lambda engine: _forget(engine, batch))


def _judged(due: _Due, reference: Reference | None, share: float) -> dict[str, object]:
    """A row for the batch."""
    batch = due.batch
    level = level_of(None if batch.number == 1 else batch.closed_at - batch.began_at, share)
    state = next_state(due.state, due.windows, reference, level, batch.closed_at)
    return asdict(batch) | {"state": _STATE.dump_python(state, mode="json")}


def _insert(engine: Engine, row: dict[str, object]) -> None:
    with engine.begin() as connection:
        # Another monitor may have closed the batch of this number meanwhile: then that one holds.
        connection.execute(insert_into(connection, DriftBatch).on_conflict_do_nothing(), row)


def _forget(engine: Engine, batch: _Batch) -> None:
    """Delete what no window of a later batch reaches back to."""
    of = DriftBatch.model_version == batch.model_version, DriftBatch.slice_id == batch.slice_id
    with engine.begin() as connection:
        connection.execute(delete(DriftBatch).where(*of, DriftBatch.number <= batch.number - SPANS[-1]))


def _next(connection: Connection, look: Look, slice_id: int) -> _Due | None:
    """None while it is too early, or there are too few photos, for another batch."""
    last = _last(connection, look.model, 1, slice_id)
    if last and timedelta(0) <= look.at - last[0]["closed_at"] < LEAST:
        return None
    batch = _next_batch(connection, look, last[0] if last else None, _newest(connection), slice_id)
    if batch is None:
        return None
    rows = _last(connection, look.model, SPANS[-1] - 1, slice_id)
    before = [_Batch(**{field.name: row[field.name] for field in fields(_Batch)}) for row in rows]
    windows = _windows(connection, [batch, *before], has_before=look.by is DriftReference.TRAINING)
    return _Due(batch, windows, _state_of(rows, look.by))


def _is_overdue(connection: Connection, look: Look) -> bool:
    last = _last(connection, look.model, 1)
    since = look.at - LEAST
    if last and since - last[0]["closed_at"] < LEAST:
        return False
    later = first_since(connection, since)
    newest = _newest(connection) if later is None else later - 1
    return _next_batch(connection, look, last[0] if last else None, newest) is not None


def _newest(connection: Connection) -> int:
    return connection.execute(select(func.max(Count.id))).scalar() or 0


def _last(connection: Connection, model: str, number: int, slice_id: int = 0) -> Sequence[RowMapping]:
    """The last batches, the newest first."""
    of = DriftBatch.model_version == model, DriftBatch.slice_id == slice_id
    rows = select(DriftBatch.__table__).where(*of)
    return connection.execute(rows.order_by(DriftBatch.number.desc()).limit(number)).mappings().all()


def _state_of(rows: Sequence[RowMapping], by: DriftReference) -> AlarmState:
    """With another reference than that of the last batch, alarms begin anew."""
    state = _read_state(rows[0]) if rows else None
    return state if state is not None and state.reference is by else AlarmState(reference=by)


def _read_state(row: RowMapping) -> AlarmState | None:
    """None if it is of a release with other signals, or damaged: alarms begin anew."""
    try:
        return _STATE.validate_python(row["state"])
    except ValidationError as error:
        logger.warning("drift: the state of the alarms cannot be read, and begins anew: %s", error)
        return None


def _next_batch(
    connection: Connection, look: Look, last: RowMapping | None, newest: int, slice_id: int = 0
) -> _Batch | None:
    """Photos since the last batch, up to number `newest`; None while there are too few."""
    model = look.model
    after = last["last_count_id"] if last else before_latest(connection, newest, LATEST, slice_id)
    photos = draw_photos(connection, model, after, newest, BATCH, slice_id) if newest - after >= MIN_PHOTOS else []
    recent = before_latest(connection, newest, 4 * BATCH, slice_id)
    if len(photos) < MIN_PHOTOS and after < recent:
        # Another model has counted since: of so many photos, those drawn are hardly ever this one's.
        photos = draw_photos(connection, model, recent, newest, BATCH, slice_id)
    if len(photos) < MIN_PHOTOS:
        return None
    if last:
        return _Batch(model, slice_id, last["number"] + 1, newest, photos, last["closed_at"], look.at)
    began = connection.execute(select(Count.recorded_at).where(Count.id == photos[0])).scalar_one()
    return _Batch(model, slice_id, 1, newest, photos, began, look.at)


def _windows(connection: Connection, batches: Sequence[_Batch], *, has_before: bool) -> list[BatchWindow]:
    """Those that the batches, the newest first, are enough for, and those before them if they matter."""
    model = batches[0].model_version
    spans = [span for span in SPANS if span <= len(batches) and _photos(batches[:span]) <= SAMPLE]
    pairs = [
        span for span in spans if has_before and 2 * span <= len(batches) and _photos(batches[: 2 * span]) <= SAMPLE
    ]
    wanted = [batches[:span] for span in spans] + [batches[span : 2 * span] for span in pairs]
    ids = [[photo for batch in part for photo in batch.count_ids] for part in wanted]
    samples = read_samples(connection, model, ids)
    before = dict(zip(pairs, samples[len(spans) :], strict=True))
    return [
        BatchWindow(span, batches[span - 1].number, batches[span - 1].began_at, seen, before.get(span))
        for span, seen in zip(spans, samples[: len(spans)], strict=True)
    ]


def _beside_same_hours(due: _Due, photos: Sequence[PhotoSample], training: Reference | None) -> _Due:
    """The same windows, each beside the photos of the same hours before."""
    windows = [
        replace(window, before=before, same_hours=make(before, training))
        for window, before in zip(due.windows, photos, strict=True)
    ]
    return replace(due, windows=windows)


def _photos(batches: Sequence[_Batch]) -> int:
    return sum(len(batch.count_ids) for batch in batches)
