"""Audits: what a person found in a bin, the ground truth for counts and inventory.

The ledger keeps every audit. The totals contain only the last audit of each count, and of each expected quantity per
photo: a corrected audit was never true, so it is subtracted. An answer without a number subtracts only the same
person's number. Blind and sighted audits have separate totals, since an auditor who has seen the numbers may just have
confirmed them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, select, update

from binwatch.confusion import INVENTORY, TruthSource
from binwatch.counts import Outcome, class_of, outcome_of, outcome_of_difference
from binwatch.errors import BinwatchError
from binwatch.keys import normalize_bin_id
from binwatch.records.engine import WRITE, can_hold
from binwatch.records.settle_variances import note_count
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
from binwatch.records.totals import add_to_totals, confusion
from binwatch.records.upsert import insert_into
from binwatch.records.variances import NO_TOLERANCE, VarianceTolerance

MAX_NOTE = 200
"""Most characters of a note."""
MAX_NAME = 100
"""Most characters of a person's name."""


class AuditAnswer(StrEnum):
    """An auditor's answer. The set is closed."""

    COUNT = "count"
    """The exact number of items: ground truth. Only these answers are used for accuracy and as labels."""
    AT_LEAST = "at_least"
    """The number of visible items; more may be hidden. Contradicts lower numbers and confirms none."""
    CANNOT_TELL = "cannot_tell"
    """The photo does not show the number."""
    GO_AND_COUNT = "go_and_count"
    """Somebody has to go to the bin and count."""

    @property
    def has_quantity(self) -> bool:
        """Whether the answer has a number."""
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


class Seen(StrEnum):
    """Values for the photo that an auditor has seen, besides a count's id."""

    WHATEVER = "whatever"
    """The items themselves were counted, so the photo does not matter."""


class StaleAudit(BinwatchError):
    """The bin has a newer photo than the one that the auditor saw, so the audit would be about an unseen photo."""


class UnknownBin(BinwatchError):
    """Neither a photo nor an expected quantity of this bin is recorded: a typing error, or another bucket."""


@dataclass(frozen=True, slots=True)
class Audited:
    """A recorded audit, with the count and the expected quantity that it judges, if there are any."""

    answer: AuditAnswer
    quantity: int | None
    predicted: int | None
    expected: int | None
    blind: bool
    id: int = 0
    """Id of the audit in the records."""
    is_new: bool = True
    """False if the same person had given the same answer for the same photo before."""

    @property
    def of_count(self) -> Outcome | None:
        """How the count compares with the answer."""
        return verdict_on_count(self.answer, self.quantity, self.predicted)

    @property
    def of_inventory(self) -> Outcome | None:
        """How the expected quantity compares with the answer."""
        return verdict_on_quantity(self.answer, self.quantity, self.expected)


def verdict_on_count(answer: AuditAnswer, quantity: int | None, predicted: int | None) -> Outcome | None:
    """How a counted class compares with an answer; None if one of them is missing or the answer does not decide it."""
    if quantity is None or predicted is None:
        return None
    return _told_by(answer, outcome_of(predicted, quantity))


def verdict_on_quantity(answer: AuditAnswer, quantity: int | None, expected: int | None) -> Outcome | None:
    """Like `verdict_on_count`, for an expected quantity."""
    if quantity is None or expected is None:
        return None
    return _told_by(answer, outcome_of_difference(expected - quantity))


def _told_by(answer: AuditAnswer, outcome: Outcome) -> Outcome | None:
    """The outcome if the answer decides it. "At least 5" shows that 4 are too few, but not that 5 or 7 are right."""
    return outcome if answer is AuditAnswer.COUNT or outcome is Outcome.UNDER else None


def check_answer(answer: AuditAnswer, quantity: int | None) -> None:
    """Raise ValueError unless the answer has a number exactly if it needs one."""
    if not answer.has_quantity:
        if quantity is not None:
            raise ValueError(f"the answer {answer} has no number of items; leave out {quantity}")
        return
    if quantity is None:
        raise ValueError(f"the answer {answer} needs a number of items")
    class_of(quantity)
    if answer is AuditAnswer.AT_LEAST and not quantity:
        raise ValueError("at least 0 items says nothing: at_least must be 1 or more; or answer cannot_tell")


def plain_note(text: str | None) -> str | None:
    """The note without surrounding space; None if empty. Raises ValueError if it is too long or not printable."""
    note = (text or "").strip()
    if not note:
        return None
    if len(note) > MAX_NOTE or not note.isprintable():
        raise ValueError(f"a note has at most {MAX_NOTE} characters, all of them printable, on one line")
    return note


def plain_name(text: str | None) -> str | None:
    """The name without surrounding space; None if empty. Raises ValueError if it is too long or not printable."""
    name = (text or "").strip()
    if not name:
        return None
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"a name has at most {MAX_NAME} characters, all of them printable")
    return name


def add_audit(
    engine: Engine,
    bucket: str,
    bin_id: str,
    quantity: int | None,
    auditor: str | None = None,
    seen: int | Seen | None = Seen.WHATEVER,
    *,
    answer: AuditAnswer = AuditAnswer.COUNT,
    reason: AuditReason | None = None,
    note: str | None = None,
    blind: bool = False,
    tolerance: VarianceTolerance = NO_TOLERANCE,
) -> Audited:
    """Record an audit of a bin. Repeating the bin's last audit changes nothing.

    `seen` is the id of the count whose photo was seen, None if the bin had no photo. `blind`: the auditor had seen
    neither count nor expected quantity. After an answer with a number, which shows both, a person's audits of the same
    photo are not blind. A number beyond the `tolerance` opens a variance of the bin, or is a recount of it.
    Raises UnknownBin; StaleAudit if a newer photo has arrived; ValueError for a quantity that does not belong to the
    answer, or an invalid note.
    """
    check_answer(answer, quantity)
    bin_id = normalize_bin_id(bin_id)
    now = datetime.now(UTC)
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        found = lock_bin(connection, bucket, bin_id)
        _check_seen(connection, found, bin_id, seen)
        row = {
            "bucket": bucket,
            "bin_id": bin_id,
            "answer": answer.value,
            "quantity": quantity,
            "reason": reason.value if reason else None,
            "note": plain_note(note),
            "auditor": auditor,
            "count_id": None if found["predicted"] is None else found["count_id"],
            "expectation_id": None if found["quantity"] is None else found["expectation_id"],
        }
        blind = blind and not _has_answered(connection, row, found)
        said = _said_before(connection, row)
        if said is not None and (said["blind"] or not blind):
            return Audited(
                answer, quantity, found["predicted"], found["quantity"], said["blind"], said["id"], is_new=False
            )
        audit_id = append_audit(connection, row | {"blind": blind}, found, now, tolerance)
    return Audited(answer, quantity, found["predicted"], found["quantity"], blind, audit_id)


def _check_seen(connection: Connection, found: RowMapping, bin_id: str, seen: int | Seen | None) -> None:
    """Raise StaleAudit unless the seen photo is the bin's latest, also if a newer model has counted it."""
    if isinstance(seen, Seen) or seen == found["count_id"]:
        return
    photo = select(Count.bucket, Count.key, Count.etag)
    was = connection.execute(photo.where(Count.id == seen)).one_or_none()
    now = connection.execute(photo.where(Count.id == found["count_id"])).one_or_none()
    if was is None or was != now:
        raise StaleAudit(f"bin {bin_id!r} has another photo than the one you saw; look at it and save again")


def _said_before(connection: Connection, row: Row) -> RowMapping | None:
    """The bin's last audit if it is the same: a form that was sent twice, or a key that was pressed twice."""
    where = (Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"])
    last = connection.execute(select(Audit.__table__).where(*where).order_by(Audit.id.desc()).limit(1)).mappings()
    found = last.one_or_none()
    return found if found and all(found[name] == value for name, value in row.items()) else None


def _has_answered(connection: Connection, row: Row, found: RowMapping) -> bool:
    """Whether this person has entered a number for this photo before; False for an auditor without a name."""
    if row["auditor"] is None:
        return False
    of_person = (Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"], Audit.auditor == row["auditor"])
    earlier = select(Audit.id).where(*of_person, Audit.quantity.is_not(None))
    if row["count_id"] is None:
        earlier = earlier.where(Audit.count_id.is_(None))
    else:
        of_photo = and_(Count.id == Audit.count_id, Count.key == found["key"], Count.etag == found["etag"])
        earlier = earlier.join(Count, of_photo)
    return connection.execute(earlier.limit(1)).one_or_none() is not None


def append_audit(
    connection: Connection,
    row: Row,
    found: RowMapping | Row,
    at: datetime,
    tolerance: VarianceTolerance | None = None,
    *,
    of_latest: bool = True,
) -> int:
    """Append an audit of a locked bin, and update comparison, variances and totals; returns the audit's id.

    `found` has the count and the expected quantity that it judges. A difference beyond `tolerance` opens a variance;
    without a tolerance, none is opened. `of_latest`: the photo is the bin's latest.
    """
    judged = _judged(connection, row, found)
    statement = insert_into(connection, Audit).values(**row, audited_at=at).returning(Audit.id)
    audit_id: int = connection.execute(statement).scalar_one()
    if of_latest:
        current = (CurrentComparison.bucket == row["bucket"], CurrentComparison.bin_id == row["bin_id"])
        connection.execute(update(CurrentComparison).where(*current).values(audit_id=audit_id))
    variances: list[Row] = []
    if tolerance is not None and row["answer"] == AuditAnswer.COUNT:
        variances = note_count(connection, row | {"id": audit_id}, found["quantity"], tolerance, at)
    add_to_totals(connection, ConfusionTotal, judged, at)
    add_to_totals(connection, AuditTotal, [{"answer": row["answer"], "blind": row["blind"], "audits": 1}], at)
    add_to_totals(connection, VarianceTotal, variances, at)
    return audit_id


def lock_bin(connection: Connection, bucket: str, bin_id: str) -> RowMapping:
    """Lock a bin; returns its latest count and expected quantity, which cannot change before the audit is recorded.

    Raises UnknownBin.
    """
    where = (Bin.bucket == bucket, Bin.bin_id == bin_id)
    lock = select(Bin.bin_id).where(*where).with_for_update()
    if not can_hold(bucket, bin_id) or connection.execute(lock).one_or_none() is None:
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


def _judged(connection: Connection, row: Row, found: RowMapping | Row) -> list[Row]:
    """The changes of `confusion_totals` by an audit.

    It corrects the last audit, of the same kind (blind or sighted), of this count, and of this expected quantity on
    this photo. Answers other than an exact number add nothing: adding "at least 5" only where it contradicts would make
    counts and inventory look worse than they are. They subtract only the same person's number, since another person's
    uncertainty contradicts nobody's number.
    """
    reference = TruthSource.AUDIT if row["blind"] else TruthSource.SIGHTED
    same_photo = and_(Count.key == found["key"], Count.etag == found["etag"])
    # Not the same expectation: a nightly file repeats the same quantity.
    same_quantity = Expectation.quantity == found["quantity"]
    judged = []
    if found["predicted"] is not None:
        judged.append((found["model_version"], found["predicted"], Audit.count_id == row["count_id"]))
    if found["quantity"] is not None:
        corrected = and_(same_quantity, same_photo if row["count_id"] else Audit.count_id.is_(None))
        judged.append((INVENTORY, class_of(found["quantity"]), corrected))
    changes = []
    for model, predicted, corrected in judged:
        is_count = row["answer"] == AuditAnswer.COUNT
        if is_count:
            changes.append(confusion(reference, model, class_of(row["quantity"]), predicted))
        before = _last_count(connection, row, corrected)
        if before is not None and (is_count or before["auditor"] == row["auditor"] is not None):
            changes.append(confusion(reference, model, class_of(before["quantity"]), predicted, weight=-1))
    return changes


def _last_count(connection: Connection, row: Row, condition: ColumnElement[bool]) -> RowMapping | None:
    """The last audit with a number that this one may correct; None if there is none, or its auditor withdrew it."""
    where = (
        Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"], Audit.blind == row["blind"], condition,
    )  # fmt: skip
    statement = (
        select(Audit.answer, Audit.quantity, Audit.auditor)
        .outerjoin(Count, Count.id == Audit.count_id)
        .outerjoin(Expectation, Expectation.id == Audit.expectation_id)
        .where(*where)
    )
    took_back = set[str]()
    for said in connection.execute(statement.order_by(Audit.id.desc())).mappings().all():
        if said["answer"] == AuditAnswer.COUNT:
            return None if said["auditor"] in took_back else said
        if said["auditor"] is not None:
            took_back.add(said["auditor"])
    return None
