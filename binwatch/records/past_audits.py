"""Imports audits, and what belongs to them, from other records or from a backup, with their times, each once.

Imported audits are appended like all audits, and update the totals. A known quantity replaces an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, select

from binwatch.records.audits import AuditAnswer, AuditReason, UnknownBin, append_audit, lock_bin
from binwatch.records.engine import WRITE
from binwatch.records.settle_variances import PastStep, restore
from binwatch.records.tables import Audit, AuditDraw, AuditRepeat, Count, Expectation, KnownAnswer
from binwatch.records.upsert import insert_into
from binwatch.records.variances import VarianceConflict, VarianceStep


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEvent:
    """An event of a bin, with the bin's photo and expected quantity at that time."""

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
    """A past audit."""

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
    """When the first one had counted it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastVariance(PastEvent):
    """A variance that was opened then, with all its steps; `expected` is what was disputed."""

    steps: tuple[PastStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastKnownAnswer(PastEvent):
    """A photo whose true quantity is known."""

    quantity: int
    source: str


class ImportOutcome(StrEnum):
    """Result of importing an event. The set is closed; the refusals say what to do."""

    IMPORTED = "imported"
    WITHOUT_EXPECTED = "imported without the expected quantity, which is not recorded here for this bin"
    KNOWN = "recorded here before"
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
    LATER_KNOWN = "a known quantity of the photo was loaded here later, and that one counts: nothing to do"

    @property
    def is_refused(self) -> bool:
        """Whether the event was not recorded."""
        return self not in (ImportOutcome.IMPORTED, ImportOutcome.WITHOUT_EXPECTED, ImportOutcome.KNOWN)


def import_event(engine: Engine, event: PastEvent) -> ImportOutcome:
    """Record an event, unless it is recorded. Audits of a bin must be imported in the order of their times, and
    before what belongs to them.

    It refers to the same model's count, or else to the last count of the same photo, since the photo was audited.
    """
    with engine.execution_options(**{WRITE: True}).begin() as connection:
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
        return _import_judged(connection, event, latest)


def _import_judged(connection: Connection, event: PastAudit | PastDraw, latest: RowMapping) -> ImportOutcome:
    """An audit or a draw: what refers to a count and an expected quantity."""
    if _is_known(connection, event):
        return ImportOutcome.KNOWN
    count = _count(connection, event)
    if event.key is not None and count is None:
        return ImportOutcome.UNKNOWN_PHOTO
    expectation_id = _expectation(connection, event)
    row = {
        "bucket": event.bucket,
        "bin_id": event.bin_id,
        "count_id": count["id"] if count else None,
        "expectation_id": expectation_id,
    }
    if isinstance(event, PastDraw):
        drawn = {"likelihood": event.likelihood, "drawn_at": event.at}
        connection.execute(insert_into(connection, AuditDraw).values(**row, **drawn))
    elif _has_later(connection, event):
        return ImportOutcome.LATER_AUDIT
    else:
        _append(connection, event, row, count, latest)
    lost = event.expected is not None and expectation_id is None
    return ImportOutcome.WITHOUT_EXPECTED if lost else ImportOutcome.IMPORTED


def _import_repeat(connection: Connection, event: PastRepeat) -> ImportOutcome:
    blind_count = (Audit.blind.is_(True), Audit.answer == AuditAnswer.COUNT)
    first = _audit_at(connection, event, event.audited_at, *blind_count)
    if first is None:
        return ImportOutcome.UNKNOWN_AUDIT
    given = connection.execute(select(AuditRepeat.auditor).where(AuditRepeat.audit_id == first)).scalar_one_or_none()
    if given is not None:
        return ImportOutcome.KNOWN if given == event.auditor else ImportOutcome.OTHER_REPEAT
    row = {"audit_id": first, "auditor": event.auditor, "given_at": event.at}
    connection.execute(insert_into(connection, AuditRepeat).values(**row))
    return ImportOutcome.IMPORTED


def _import_variance(connection: Connection, event: PastVariance, expected_now: int | None) -> ImportOutcome:
    steps = []
    for step in event.steps:
        audit_id = None
        if step.entry.step is VarianceStep.COUNTED:
            said = (Audit.quantity == step.entry.quantity, Audit.auditor == step.entry.person)
            audit_id = _audit_at(connection, event, step.at, *said)
            if audit_id is None:
                return ImportOutcome.UNKNOWN_AUDIT
        steps.append(replace(step, audit_id=audit_id))
    opened = {"bucket": event.bucket, "bin_id": event.bin_id, "expected": event.expected, "opened_at": event.at}
    try:
        new = restore(connection, opened, steps, expected_now)
    except VarianceConflict:
        return ImportOutcome.OTHER_VARIANCE
    return ImportOutcome.IMPORTED if new else ImportOutcome.KNOWN


def _import_known_answer(connection: Connection, event: PastKnownAnswer) -> ImportOutcome:
    if _count(connection, event) is None:
        return ImportOutcome.UNKNOWN_PHOTO
    photo = {"bucket": event.bucket, "key": event.key, "etag": event.etag}
    of_photo = (getattr(KnownAnswer, name) == value for name, value in photo.items())
    known = connection.execute(select(KnownAnswer.quantity, KnownAnswer.loaded_at).where(*of_photo)).one_or_none()
    if known and known.quantity == event.quantity:
        return ImportOutcome.KNOWN
    if known and known.loaded_at > event.at:
        return ImportOutcome.LATER_KNOWN
    told = {"quantity": event.quantity, "source": event.source, "loaded_at": event.at}
    insert = insert_into(connection, KnownAnswer).values(**photo, bin_id=event.bin_id, **told)
    connection.execute(insert.on_conflict_do_update(index_elements=tuple(photo), set_=told))
    return ImportOutcome.IMPORTED


def _audit_at(connection: Connection, event: PastEvent, at: datetime, *conditions: ColumnElement[bool]) -> int | None:
    """Id of the bin's audit of this time; None if there is none."""
    audits = select(Audit.id).where(Audit.bucket == event.bucket, Audit.bin_id == event.bin_id, Audit.audited_at == at)
    return connection.execute(audits.where(*conditions).order_by(Audit.id).limit(1)).scalar_one_or_none()


def _is_known(connection: Connection, event: PastAudit | PastDraw) -> bool:
    if isinstance(event, PastDraw):
        known = select(AuditDraw.id).where(AuditDraw.bucket == event.bucket, AuditDraw.bin_id == event.bin_id)
        known = known.where(AuditDraw.drawn_at == event.at)
    else:
        said = (Audit.answer == event.answer, Audit.quantity == event.quantity, Audit.auditor == event.auditor)
        known = select(Audit.id).where(Audit.bucket == event.bucket, Audit.bin_id == event.bin_id)
        known = known.where(Audit.audited_at == event.at, *said)
    return connection.execute(known.limit(1)).one_or_none() is not None


def _has_later(connection: Connection, event: PastAudit) -> bool:
    later = select(Audit.id).where(Audit.bucket == event.bucket, Audit.bin_id == event.bin_id)
    return connection.execute(later.where(Audit.audited_at > event.at).limit(1)).one_or_none() is not None


def _count(connection: Connection, event: PastEvent) -> RowMapping | None:
    if event.key is None:
        return None
    photo = (Count.bucket == event.bucket, Count.key == event.key, Count.etag == event.etag)
    counted = select(Count.id, Count.key, Count.etag, Count.predicted, Count.model_version).where(
        *photo, Count.bin_id == event.bin_id, Count.predicted.is_not(None)
    )
    by_model = counted.order_by((Count.model_version == event.model).desc(), Count.id.desc())
    return connection.execute(by_model.limit(1)).mappings().one_or_none()


def _expectation(connection: Connection, event: PastEvent) -> int | None:
    if event.expected is None:
        return None
    same = select(Expectation.id).where(
        Expectation.bucket == event.bucket,
        Expectation.bin_id == event.bin_id,
        Expectation.quantity == event.expected,
    )
    return connection.execute(same.order_by(Expectation.id.desc()).limit(1)).scalar_one_or_none()


def _append(
    connection: Connection,
    event: PastAudit,
    row: dict[str, object],
    count: RowMapping | None,
    latest: RowMapping,
) -> None:
    said = {
        "answer": event.answer.value,
        "quantity": event.quantity,
        "reason": event.reason.value if event.reason else None,
        "note": event.note,
        "auditor": event.auditor,
        "blind": event.blind,
    }
    photo = {name: count[name] if count else None for name in ("key", "etag", "predicted", "model_version")}
    judged = photo | {"quantity": None if row["expectation_id"] is None else event.expected}
    of_latest = count is not None and (count["key"], count["etag"]) == (latest["key"], latest["etag"])
    append_audit(connection, row | said, judged, event.at, of_latest=of_latest)
