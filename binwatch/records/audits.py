"""Audits: the number of items that a person found in a bin, which is the ground truth for counts and inventory.

The ledger keeps every audit. The totals contain only the last exact number for each count, and for each expected
quantity per photo: a correction subtracts the audit that it replaces. Any other answer subtracts only the same person's
number. Blind and sighted audits have separate totals, since an auditor who saw the numbers may merely have confirmed
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, select, update

from binwatch.confusion import INVENTORY, TruthSource
from binwatch.counts import Outcome, class_of, outcome_of, outcome_of_difference
from binwatch.errors import BinwatchError
from binwatch.keys import normalise_bin_id
from binwatch.records.engine import for_writing, is_storable
from binwatch.records.settle_variances import update_variance
from binwatch.records.settlement import Row
from binwatch.records.tables import (
    Audit,
    AuditTotal,
    Bin,
    ConfusionTotal,
    Count,
    CurrentComparison,
    Expectation,
    VarianceTotal,
)
from binwatch.records.totals import add_to_totals, confusion_row
from binwatch.records.upsert import insert_into
from binwatch.records.variances import NO_TOLERANCE, VarianceTolerance

MAX_NOTE_LENGTH = 200
"""Maximum length of a note in characters."""
MAX_NAME_LENGTH = 100
"""Maximum length of a person's name in characters."""


class AuditAnswer(StrEnum):
    """An auditor's answer. The set is closed."""

    COUNT = "count"
    """The exact number of items: ground truth. Only these answers are used for accuracy and as labels."""
    AT_LEAST = "at_least"
    """The number of visible items; more may be hidden. Contradicts lower numbers and confirms none."""
    CANNOT_TELL = "cannot_tell"
    """The photo does not show the number."""
    GO_AND_COUNT = "go_and_count"
    """Somebody must go to the bin and count the items."""

    @property
    def has_quantity(self) -> bool:
        """Whether the answer includes a number of items."""
        return self in (AuditAnswer.COUNT, AuditAnswer.AT_LEAST)


class AuditReason(StrEnum):
    """Why the number was hard to tell. The set is closed."""

    HIDDEN = "hidden"
    """Items are hidden behind others."""
    PACKAGING = "packaging"
    """A package does not show its contents."""
    MULTIPACK = "multipack"
    """It is unclear whether a pack is one item or several."""
    BLURRED = "blurred"
    OTHER = "other"


class SeenPhoto(StrEnum):
    """Stands in for the id of a count where no particular photo was audited."""

    ANY = "any"
    """The items themselves were counted, so the audit holds for any photo."""


class StaleAudit(BinwatchError):
    """The bin has a newer photo than the one that the auditor saw."""


class UnknownBin(BinwatchError):
    """The bin has neither a photo nor an expected quantity: its id is mistyped, or it is in another bucket."""


@dataclass(frozen=True, slots=True)
class RecordedAudit:
    """A recorded audit, with the count and the expected quantity that it judges, each None if it does not exist."""

    answer: AuditAnswer
    quantity: int | None
    predicted: int | None
    expected: int | None
    blind: bool
    id: int = 0
    """Id in `audits`."""
    is_new: bool = True
    """False if the bin's last audit is identical, so that nothing was recorded."""

    @property
    def of_count(self) -> Outcome | None:
        """How the count compares with the answer; None if there is no count, or the answer is inconclusive."""
        return verdict_on_count(self.answer, self.quantity, self.predicted)

    @property
    def of_inventory(self) -> Outcome | None:
        """How the expected quantity compares with the answer; None if there is none, or the answer is inconclusive."""
        return verdict_on_quantity(self.answer, self.quantity, self.expected)


def verdict_on_count(answer: AuditAnswer, quantity: int | None, predicted: int | None) -> Outcome | None:
    """Compare a counted class with an audit; returns None if a number is missing or the answer is inconclusive."""
    if quantity is None or predicted is None:
        return None
    return _conclusive(answer, outcome_of(predicted, quantity))


def verdict_on_quantity(answer: AuditAnswer, quantity: int | None, expected: int | None) -> Outcome | None:
    """Compare an expected quantity with an audit, like `verdict_on_count`."""
    if quantity is None or expected is None:
        return None
    return _conclusive(answer, outcome_of_difference(expected - quantity))


def _conclusive(answer: AuditAnswer, outcome: Outcome) -> Outcome | None:
    """Return the outcome if the answer proves it, else None.

    "At least 5" proves 4 too low, but neither 5 nor 7 right.
    """
    return outcome if answer is AuditAnswer.COUNT or outcome is Outcome.UNDER else None


def check_answer(answer: AuditAnswer, quantity: int | None) -> None:
    """Raise ValueError if the answer lacks a number that it needs, or has one that it must not have."""
    if not answer.has_quantity:
        if quantity is not None:
            raise ValueError(f"the answer {answer} has no number of items; leave out {quantity}")
        return
    if quantity is None:
        raise ValueError(f"the answer {answer} needs a number of items")
    class_of(quantity)
    if answer is AuditAnswer.AT_LEAST and not quantity:
        raise ValueError("at least 0 items says nothing: at_least must be 1 or more; or answer cannot_tell")


def clean_note(text: str | None) -> str | None:
    """Strip a note; returns None if it is empty. Raises ValueError if it is too long or not printable."""
    note = (text or "").strip()
    if len(note) > MAX_NOTE_LENGTH or not note.isprintable():
        raise ValueError(f"a note has at most {MAX_NOTE_LENGTH} characters, all of them printable, on one line")
    return note or None


def clean_name(text: str | None) -> str | None:
    """Strip a name; returns None if it is empty. Raises ValueError if it is too long or not printable."""
    name = (text or "").strip()
    if len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(f"a name has at most {MAX_NAME_LENGTH} characters, all of them printable")
    return name or None


def add_audit(
    engine: Engine,
    bucket: str,
    bin_id: str,
    quantity: int | None,
    auditor: str | None = None,
    seen_count_id: int | SeenPhoto | None = SeenPhoto.ANY,
    *,
    answer: AuditAnswer = AuditAnswer.COUNT,
    reason: AuditReason | None = None,
    note: str | None = None,
    blind: bool = False,
    tolerance: VarianceTolerance = NO_TOLERANCE,
) -> RecordedAudit:
    """Record an audit of a bin. Repeating the bin's last audit changes nothing, unless only the repetition is blind.

    `seen_count_id` is the count whose photo the auditor saw, None if the bin had no photo. `blind` says that the
    auditor saw neither the count nor the expected quantity. Since the reply to a number shows both, the same person's
    later audits of that photo are recorded as sighted. An exact number that differs from the expected quantity by more
    than `tolerance` opens a variance; if the bin has an undecided one, the number may be a recount (`is_recount`).

    Raises UnknownBin; StaleAudit if a newer photo has arrived; ValueError for a quantity that does not fit the answer,
    or an invalid note.
    """
    check_answer(answer, quantity)
    bin_id = normalise_bin_id(bin_id)
    now = datetime.now(UTC)
    with for_writing(engine).begin() as connection:
        latest = lock_bin(connection, bucket, bin_id)
        _check_photo_unchanged(connection, latest, bin_id, seen_count_id)
        row = {
            "bucket": bucket,
            "bin_id": bin_id,
            "answer": answer.value,
            "quantity": quantity,
            "reason": reason.value if reason else None,
            "note": clean_note(note),
            "auditor": auditor,
            "count_id": None if latest["predicted"] is None else latest["count_id"],
            "expectation_id": None if latest["quantity"] is None else latest["expectation_id"],
        }
        blind = blind and not _has_entered_number(connection, row, latest)
        predicted, expected = latest["predicted"], latest["quantity"]
        last = _identical_last_audit(connection, row)
        if last is not None and (last["blind"] or not blind):
            return RecordedAudit(answer, quantity, predicted, expected, last["blind"], last["id"], is_new=False)
        audit_id = append_audit(connection, row | {"blind": blind}, latest, now, tolerance)
    return RecordedAudit(answer, quantity, predicted, expected, blind, audit_id)


def _check_photo_unchanged(
    connection: Connection, latest: RowMapping, bin_id: str, seen_count_id: int | SeenPhoto | None
) -> None:
    """Raise StaleAudit unless the auditor saw the bin's latest photo.

    It does not matter if a newer model has counted that photo since.
    """
    if isinstance(seen_count_id, SeenPhoto) or seen_count_id == latest["count_id"]:
        return
    photo = select(Count.bucket, Count.key, Count.etag)
    seen = connection.execute(photo.where(Count.id == seen_count_id)).one_or_none()
    current = connection.execute(photo.where(Count.id == latest["count_id"])).one_or_none()
    if seen is None or seen != current:
        raise StaleAudit(f"bin {bin_id!r} has another photo than the one you saw; look at it and save again")


def _identical_last_audit(connection: Connection, row: Row) -> RowMapping | None:
    """Return the bin's last audit if it equals `row`, for example because a form was sent or a key pressed twice."""
    where = (Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"])
    statement = select(Audit.__table__).where(*where).order_by(Audit.id.desc()).limit(1)
    last = connection.execute(statement).mappings().one_or_none()
    return last if last and all(last[name] == value for name, value in row.items()) else None


def _has_entered_number(connection: Connection, row: Row, latest: RowMapping) -> bool:
    """Return whether this person has entered a number for this photo before; False for an auditor without a name."""
    if row["auditor"] is None:
        return False
    by_auditor = (Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"], Audit.auditor == row["auditor"])
    earlier = select(Audit.id).where(*by_auditor, Audit.quantity.is_not(None))
    if row["count_id"] is None:
        earlier = earlier.where(Audit.count_id.is_(None))
    else:
        of_photo = and_(Count.id == Audit.count_id, Count.key == latest["key"], Count.etag == latest["etag"])
        earlier = earlier.join(Count, of_photo)
    return connection.execute(earlier.limit(1)).one_or_none() is not None


def append_audit(
    connection: Connection,
    row: Row,
    audited: RowMapping | Row,
    audited_at: datetime,
    tolerance: VarianceTolerance | None = None,
    *,
    is_latest_photo: bool = True,
) -> int:
    """Append an audit of a locked bin, and update its comparison, variances and totals; returns the audit's id.

    `audited` has the count and the expected quantity that the audit judges. A difference beyond `tolerance` opens a
    variance; without a tolerance, variances stay as they are. `is_latest_photo`: whether the audited photo is the
    bin's latest.
    """
    confusions = _confusion_changes(connection, row, audited)
    statement = insert_into(connection, Audit).values(**row, audited_at=audited_at).returning(Audit.id)
    audit_id: int = connection.execute(statement).scalar_one()
    if is_latest_photo:
        of_bin = (CurrentComparison.bucket == row["bucket"], CurrentComparison.bin_id == row["bin_id"])
        connection.execute(update(CurrentComparison).where(*of_bin).values(audit_id=audit_id))
    variances: list[Row] = []
    if tolerance is not None and row["answer"] == AuditAnswer.COUNT:
        variances = update_variance(connection, row | {"id": audit_id}, audited["quantity"], tolerance, audited_at)
    audits = [{"answer": row["answer"], "blind": row["blind"], "audits": 1}]
    add_to_totals(connection, ConfusionTotal, confusions, audited_at)
    add_to_totals(connection, AuditTotal, audits, audited_at)
    add_to_totals(connection, VarianceTotal, variances, audited_at)
    return audit_id


def lock_bin(connection: Connection, bucket: str, bin_id: str) -> RowMapping:
    """Lock a bin; returns its latest count and expected quantity, which cannot change until the transaction ends.

    Raises UnknownBin.
    """
    where = (Bin.bucket == bucket, Bin.bin_id == bin_id)
    lock = select(Bin.bin_id).where(*where).with_for_update()
    if not is_storable(bucket, bin_id) or connection.execute(lock).one_or_none() is None:
        raise UnknownBin(
            f"no photo and no expected quantity of bin {bin_id!r} in bucket {bucket!r} is recorded; a bin's id is the"
            " name of its photo without folder and suffix, such as 00123"
        )
    statement = (
        select(
            Bin.count_id,
            Bin.expectation_id,
            Count.key,
            Count.etag,
            Count.predicted,
            Count.model_version,
            Expectation.quantity,
        )
        .select_from(Bin)
        .outerjoin(Count, Count.id == Bin.count_id)
        .outerjoin(Expectation, Expectation.id == Bin.expectation_id)
        .where(*where)
    )
    return connection.execute(statement).mappings().one()


def _confusion_changes(connection: Connection, row: Row, audited: RowMapping | Row) -> list[Row]:
    """Compute what an audit adds to `confusion_totals`, and what it subtracts as a correction.

    It corrects the last audit of the same kind (blind or sighted) of this count, and of this expected quantity on this
    photo. Answers other than an exact number add nothing: adding "at least 5" only where it contradicts would make
    counts and inventory look worse than they are. They subtract only the same person's number, since one person's
    uncertainty does not contradict another's number.
    """
    reference = TruthSource.AUDIT if row["blind"] else TruthSource.SIGHTED
    same_photo = and_(Count.key == audited["key"], Count.etag == audited["etag"])
    # Not the same expectation: a nightly file repeats the same quantity.
    same_quantity = Expectation.quantity == audited["quantity"]
    judged = []
    if audited["predicted"] is not None:
        judged.append((audited["model_version"], audited["predicted"], Audit.count_id == row["count_id"]))
    if audited["quantity"] is not None:
        of_photo = and_(same_quantity, same_photo if row["count_id"] else Audit.count_id.is_(None))
        judged.append((INVENTORY, class_of(audited["quantity"]), of_photo))
    changes = []
    for model, predicted, of_photo in judged:
        is_count = row["answer"] == AuditAnswer.COUNT
        if is_count:
            changes.append(confusion_row(reference, model, class_of(row["quantity"]), predicted))
        previous = _last_valid_count(connection, row, of_photo)
        if previous is not None and (is_count or previous["auditor"] == row["auditor"] is not None):
            changes.append(confusion_row(reference, model, class_of(previous["quantity"]), predicted, weight=-1))
    return changes


def _last_valid_count(connection: Connection, row: Row, condition: ColumnElement[bool]) -> RowMapping | None:
    """Return the last exact number that `row` corrects; None if there is none, or its auditor has withdrawn it."""
    statement = (
        select(Audit.answer, Audit.quantity, Audit.auditor)
        .outerjoin(Count, Count.id == Audit.count_id)
        .outerjoin(Expectation, Expectation.id == Audit.expectation_id)
        .where(Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"], Audit.blind == row["blind"], condition)
    )
    withdrawn_by = set[str]()
    for audit in connection.execute(statement.order_by(Audit.id.desc())).mappings().all():
        if audit["answer"] == AuditAnswer.COUNT:
            return None if audit["auditor"] in withdrawn_by else audit
        if audit["auditor"] is not None:
            withdrawn_by.add(audit["auditor"])
    return None
