"""Imports audits, draws, repeats, variances and known answers from other records or a backup.

Each is imported only once, and keeps its time. Imported audits are appended like new ones, and update the totals. A
known answer replaces an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, select

from binwatch.records.audits import AuditAnswer, AuditReason, UnknownBin, append_audit, lock_bin
from binwatch.records.engine import for_writing
from binwatch.records.settle_variances import PastStep, import_variance
from binwatch.records.tables import Audit, AuditDraw, AuditRepeat, Count, Expectation, KnownAnswer
from binwatch.records.upsert import insert_into
from binwatch.records.variances import VarianceConflict, VarianceStep


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEvent:
    """An event at a bin, with the bin's photo and expected quantity at that time."""

    bucket: str
    bin_id: str
    at: datetime
    key: str | None
    """Key of the photo; None if the bin had no counted photo."""
    etag: str
    model: str | None
    """Version of the model that counted the photo."""
    expected: int | None
    """The expected quantity; None if there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAudit(PastEvent):
    """An audit."""

    answer: AuditAnswer
    quantity: int | None
    reason: AuditReason | None
    note: str | None
    auditor: str | None
    blind: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDraw(PastEvent):
    """A bin that was drawn at random."""

    likelihood: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRepeat(PastEvent):
    """A photo that was given to a second auditor."""

    auditor: str
    audited_at: datetime
    """Time of the first auditor's audit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastVariance(PastEvent):
    """A variance that was opened at this time, with all its steps. `expected` is the disputed quantity."""

    steps: tuple[PastStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastKnownAnswer(PastEvent):
    """A photo whose true quantity is known."""

    quantity: int
    source: str


class ImportOutcome(StrEnum):
    """Result of importing an event. The set is closed. Each refusal says what to do."""

    IMPORTED = "imported"
    WITHOUT_EXPECTED = "imported without the expected quantity, which is not recorded here for this bin"
    ALREADY_RECORDED = "recorded here before"
    UNKNOWN_BIN = (
        "no photo and no expected quantity of this bin is recorded here: check bucket and bin, or count the photos"
        " first (python -m worker backfill)"
    )
    UNKNOWN_PHOTO = (
        "this photo of the bin was never counted here: count the photos first (python -m worker backfill); if the photo"
        " has been replaced in the bucket, it cannot be imported"
    )
    LATER_AUDIT = "the bin has a later audit here, and the one that is entered last counts: nothing to do"
    UNKNOWN_AUDIT = "an audit that it belongs to is not recorded here: import that audit first"
    OTHER_REPEAT = "the photo was given to another second auditor here: nothing to do"
    OTHER_VARIANCE = (
        "the variance has other steps here, or the bin has a variance here that is later or undecided: nothing to do"
    )
    LATER_KNOWN_ANSWER = "a known quantity of the photo was loaded here later, and that one counts: nothing to do"

    @property
    def is_refused(self) -> bool:
        """Whether the event is missing from the records: it was recorded neither now nor before."""
        return self not in (ImportOutcome.IMPORTED, ImportOutcome.WITHOUT_EXPECTED, ImportOutcome.ALREADY_RECORDED)


def import_event(engine: Engine, event: PastEvent) -> ImportOutcome:
    """Record an event unless it is recorded already.

    Import the audits of a bin in the order of their times, and before the events that refer to them. An event refers to
    the same model's count of the photo, or else to the photo's last count.
    """
    with for_writing(engine).begin() as connection:
        try:
            latest = lock_bin(connection, event.bucket, event.bin_id)
        except UnknownBin:
            return ImportOutcome.UNKNOWN_BIN
        if isinstance(event, PastRepeat):
            return _import_repeat(connection, event)
        if isinstance(event, PastVariance):
            return _import_variance(connection, event, latest["quantity"])
        if isinstance(event, PastKnownAnswer):
            return _import_known_answer(connection, event)
        assert isinstance(event, PastAudit | PastDraw)
        return _import_audit_or_draw(connection, event, latest)


def _import_audit_or_draw(connection: Connection, event: PastAudit | PastDraw, latest: RowMapping) -> ImportOutcome:
    if _is_recorded(connection, event):
        return ImportOutcome.ALREADY_RECORDED
    count = _find_count(connection, event)
    if event.key is not None and count is None:
        return ImportOutcome.UNKNOWN_PHOTO
    expectation_id = _find_expectation(connection, event)
    row = {
        "bucket": event.bucket,
        "bin_id": event.bin_id,
        "count_id": count["id"] if count else None,
        "expectation_id": expectation_id,
    }
    if isinstance(event, PastDraw):
        row |= {"likelihood": event.likelihood, "drawn_at": event.at}
        connection.execute(insert_into(connection, AuditDraw).values(**row))
    elif _has_later_audit(connection, event):
        return ImportOutcome.LATER_AUDIT
    else:
        _append(connection, event, row, count, latest)
    lacks_expected = event.expected is not None and expectation_id is None
    return ImportOutcome.WITHOUT_EXPECTED if lacks_expected else ImportOutcome.IMPORTED


def _import_repeat(connection: Connection, event: PastRepeat) -> ImportOutcome:
    blind_count_conditions = (Audit.blind.is_(True), Audit.answer == AuditAnswer.COUNT)
    first_id = _find_audit(connection, event, event.audited_at, *blind_count_conditions)
    if first_id is None:
        return ImportOutcome.UNKNOWN_AUDIT
    second_auditor = select(AuditRepeat.auditor).where(AuditRepeat.audit_id == first_id)
    recorded = connection.execute(second_auditor).scalar_one_or_none()
    if recorded is not None:
        return ImportOutcome.ALREADY_RECORDED if recorded == event.auditor else ImportOutcome.OTHER_REPEAT
    row = {"audit_id": first_id, "auditor": event.auditor, "given_at": event.at}
    connection.execute(insert_into(connection, AuditRepeat).values(**row))
    return ImportOutcome.IMPORTED


def _import_variance(connection: Connection, event: PastVariance, expected_now: int | None) -> ImportOutcome:
    steps = []
    for step in event.steps:
        audit_id = None
        if step.entry.step is VarianceStep.COUNTED:
            same_audit_conditions = (Audit.quantity == step.entry.quantity, Audit.auditor == step.entry.person)
            audit_id = _find_audit(connection, event, step.at, *same_audit_conditions)
            if audit_id is None:
                return ImportOutcome.UNKNOWN_AUDIT
        steps.append(replace(step, audit_id=audit_id))
    opened = {"bucket": event.bucket, "bin_id": event.bin_id, "expected": event.expected, "opened_at": event.at}
    try:
        new_steps = import_variance(connection, opened, steps, expected_now)
    except VarianceConflict:
        return ImportOutcome.OTHER_VARIANCE
    return ImportOutcome.IMPORTED if new_steps else ImportOutcome.ALREADY_RECORDED


def _import_known_answer(connection: Connection, event: PastKnownAnswer) -> ImportOutcome:
    if _find_count(connection, event) is None:
        return ImportOutcome.UNKNOWN_PHOTO
    photo = {"bucket": event.bucket, "key": event.key, "etag": event.etag}
    photo_conditions = tuple(getattr(KnownAnswer, name) == value for name, value in photo.items())
    recorded = connection.execute(
        select(KnownAnswer.quantity, KnownAnswer.loaded_at).where(*photo_conditions)
    ).one_or_none()
    if recorded and recorded.quantity == event.quantity:
        return ImportOutcome.ALREADY_RECORDED
    if recorded and recorded.loaded_at > event.at:
        return ImportOutcome.LATER_KNOWN_ANSWER
    values = {"quantity": event.quantity, "source": event.source, "loaded_at": event.at}
    insert = insert_into(connection, KnownAnswer).values(**photo, bin_id=event.bin_id, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=tuple(photo), set_=values))
    return ImportOutcome.IMPORTED


def _find_audit(
    connection: Connection, event: PastEvent, audited_at: datetime, *conditions: ColumnElement[bool]
) -> int | None:
    """Return the id of the bin's audit at this time; None if there is none."""
    audits = select(Audit.id).where(
        Audit.bucket == event.bucket, Audit.bin_id == event.bin_id, Audit.audited_at == audited_at
    )
    return connection.execute(audits.where(*conditions).order_by(Audit.id).limit(1)).scalar_one_or_none()


def _is_recorded(connection: Connection, event: PastAudit | PastDraw) -> bool:
    if isinstance(event, PastDraw):
        same_draw = select(AuditDraw.id).where(
            AuditDraw.bucket == event.bucket, AuditDraw.bin_id == event.bin_id, AuditDraw.drawn_at == event.at
        )
        return connection.execute(same_draw.limit(1)).one_or_none() is not None
    same_audit_conditions = (
        Audit.answer == event.answer,
        Audit.quantity == event.quantity,
        Audit.auditor == event.auditor,
    )
    return _find_audit(connection, event, event.at, *same_audit_conditions) is not None


def _has_later_audit(connection: Connection, event: PastAudit) -> bool:
    of_bin = select(Audit.id).where(Audit.bucket == event.bucket, Audit.bin_id == event.bin_id)
    return connection.execute(of_bin.where(Audit.audited_at > event.at).limit(1)).one_or_none() is not None


def _find_count(connection: Connection, event: PastEvent) -> RowMapping | None:
    """Return the same model's count of the event's photo, or else its last count; None if it was never counted."""
    if event.key is None:
        return None
    photo_conditions = (Count.bucket == event.bucket, Count.key == event.key, Count.etag == event.etag)
    counts = select(Count.id, Count.key, Count.etag, Count.predicted, Count.model_version).where(
        *photo_conditions, Count.bin_id == event.bin_id, Count.predicted.is_not(None)
    )
    same_model_first = counts.order_by((Count.model_version == event.model).desc(), Count.id.desc())
    return connection.execute(same_model_first.limit(1)).mappings().one_or_none()


def _find_expectation(connection: Connection, event: PastEvent) -> int | None:
    """Return the id of the bin's last expectation with the event's expected quantity; None if there is none."""
    if event.expected is None:
        return None
    same_quantity = select(Expectation.id).where(
        Expectation.bucket == event.bucket,
        Expectation.bin_id == event.bin_id,
        Expectation.quantity == event.expected,
    )
    return connection.execute(same_quantity.order_by(Expectation.id.desc()).limit(1)).scalar_one_or_none()


def _append(
    connection: Connection,
    event: PastAudit,
    row: dict[str, object],
    count: RowMapping | None,
    latest: RowMapping,
) -> None:
    row |= {
        "answer": event.answer.value,
        "quantity": event.quantity,
        "reason": event.reason.value if event.reason else None,
        "note": event.note,
        "auditor": event.auditor,
        "blind": event.blind,
    }
    photo = {name: count[name] if count else None for name in ("key", "etag", "predicted", "model_version")}
    audited = photo | {"quantity": None if row["expectation_id"] is None else event.expected}
    is_latest_photo = count is not None and (count["key"], count["etag"]) == (latest["key"], latest["etag"])
    append_audit(connection, row, audited, event.at, is_latest_photo=is_latest_photo)
