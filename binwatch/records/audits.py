"""Audits: what a person found in a bin, the truth that counts and inventory are both measured against.

The ledger keeps every audit. The sums hold the last one of each count, and the last one of each expected quantity on
each photo: a corrected audit never was the truth, so what it said is taken back. An answer that is no number takes
back the same person's number alone. Blind audits and those with the numbers in sight have sums of their own: an auditor
who has seen the numbers may have confirmed them, or corrected a right answer to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, select, update

from binwatch.confusion import INVENTORY, TruthSource
from binwatch.counts import Outcome, class_of, outcome_by, outcome_of
from binwatch.errors import BinwatchError
from binwatch.keys import bin_id as one_bin_id
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
"""Characters of a note."""
MAX_NAME = 100
"""Characters of a person's name."""


class AuditAnswer(StrEnum):
    """What an auditor answers. The set is closed."""

    COUNT = "count"
    """So many items: a truth, the only answer that accuracy and labels are made of."""
    AT_LEAST = "at_least"
    """So many are to be seen, and more may be hidden. It can contradict a lower number, and confirms none."""
    CANNOT_TELL = "cannot_tell"
    """Not from this photo."""
    GO_AND_COUNT = "go_and_count"
    """Somebody has to go to the bin and count."""

    @property
    def has_quantity(self) -> bool:
        """Whether a number belongs to it."""
        return self in (AuditAnswer.COUNT, AuditAnswer.AT_LEAST)


class AuditReason(StrEnum):
    """Why an answer was hard to give. The set is closed."""

    HIDDEN = "hidden"
    """Items are hidden behind others."""
    PACKAGING = "packaging"
    """A package does not show whether or what it contains."""
    MULTIPACK = "multipack"
    """What is one item, and what is a pack of several?"""
    BLURRED = "blurred"
    OTHER = "other"


class Seen(StrEnum):
    """What an auditor says of the photo that was looked at, where that is not a count's id."""

    WHATEVER = "whatever"
    """The items themselves were counted; which photo is the latest does not matter."""


class StaleAudit(BinwatchError):
    """The bin has another photo than the one that the auditor saw: the audit would judge what nobody looked at."""


class UnknownBin(BinwatchError):
    """Neither a photo nor an expected quantity of this bin was ever recorded: mistyped, or in another bucket."""


@dataclass(frozen=True, slots=True)
class Audited:
    """One audit as recorded, beside what it judges; None where there was nothing to judge."""

    answer: AuditAnswer
    quantity: int | None
    predicted: int | None
    expected: int | None
    blind: bool
    id: int = 0
    """Of the audit in the records."""
    is_new: bool = True
    """False if the same person had said just that of the same photo before."""

    @property
    def of_count(self) -> Outcome | None:
        """How the count compares with the truth."""
        return verdict_on_count(self.answer, self.quantity, self.predicted)

    @property
    def of_inventory(self) -> Outcome | None:
        """How the expected quantity compares with the truth."""
        return verdict_on_quantity(self.answer, self.quantity, self.expected)


def verdict_on_count(answer: AuditAnswer, quantity: int | None, predicted: int | None) -> Outcome | None:
    """How a counted class compares with an answer; None if the answer does not say, or there is none of the two."""
    if quantity is None or predicted is None:
        return None
    return _told_by(answer, outcome_of(predicted, quantity))


def verdict_on_quantity(answer: AuditAnswer, quantity: int | None, expected: int | None) -> Outcome | None:
    """The same of an expected quantity."""
    if quantity is None or expected is None:
        return None
    return _told_by(answer, outcome_by(expected - quantity))


def _told_by(answer: AuditAnswer, outcome: Outcome) -> Outcome | None:
    """Of "at least 5", that 4 are too few; not that 5, or 7, are right."""
    return outcome if answer is AuditAnswer.COUNT or outcome is Outcome.UNDER else None


def check_answer(answer: AuditAnswer, quantity: int | None) -> None:
    """Raise ValueError unless a number is there where one belongs."""
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
    """A note as it can be kept; None if there is none. Raises ValueError if it is too long or not printable."""
    note = (text or "").strip()
    if not note:
        return None
    if len(note) > MAX_NOTE or not note.isprintable():
        raise ValueError(f"a note has at most {MAX_NOTE} characters, all of them printable, on one line")
    return note


def plain_name(text: str | None) -> str | None:
    """A person's name as it can be kept; None if there is none. Raises ValueError if it is none."""
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
    """Record what somebody found in a bin. Saying the same again at once changes nothing.

    `seen` is the id of the count whose photo was looked at, None if the bin had no photo. `blind`: the auditor had seen
    neither count nor expected quantity. Of a photo, no answer of a person can be after one with a number, which shows
    both. A number beyond the `tolerance` opens a variance of the bin, or is a recount of it.
    Raises UnknownBin; StaleAudit if a newer photo has arrived; ValueError for a quantity that does not belong to the
    answer, or a note that cannot be kept.
    """
    check_answer(answer, quantity)
    bin_id = one_bin_id(bin_id)
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
    """A newer model's count of the same photo is no other photo."""
    if isinstance(seen, Seen) or seen == found["count_id"]:
        return
    photo = select(Count.bucket, Count.key, Count.etag)
    was = connection.execute(photo.where(Count.id == seen)).one_or_none()
    now = connection.execute(photo.where(Count.id == found["count_id"])).one_or_none()
    if was is None or was != now:
        raise StaleAudit(f"bin {bin_id!r} has another photo than the one you saw; look at it and save again")


def _said_before(connection: Connection, row: Row) -> RowMapping | None:
    """The bin's last audit if it says the same: a form that was sent twice, a key that was hit twice."""
    where = (Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"])
    last = connection.execute(select(Audit.__table__).where(*where).order_by(Audit.id.desc()).limit(1)).mappings()
    found = last.one_or_none()
    return found if found and all(found[name] == value for name, value in row.items()) else None


def _has_answered(connection: Connection, row: Row, found: RowMapping) -> bool:
    """Whether this person has entered a number of this photo before; of nobody by name it is not known."""
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
    """Append an audit of a bin that is locked, with what follows from it; returns its id.

    `found` is the count and the expected quantity that it judges; a difference from that beyond `tolerance` opens a
    variance, and none does without one; `of_latest`: the photo is the bin's latest.
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
    """What the bin shows and should hold; no count or expectation can arrive before the audit is recorded.

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
    """What the audit adds to `confusion_totals`, and what it takes back.

    It corrects the last audits, blind or not as it is itself, of this very count, and of this expected quantity on this
    photo. Answers that are not a number of all items add nothing: to add "at least 5" where it contradicts, and to
    leave it out where it does not, would make counts and inventory look worse than they are. They take back what the
    same person found: that somebody else cannot tell contradicts nobody's number.
    """
    reference = TruthSource.AUDIT if row["blind"] else TruthSource.SIGHTED
    same_photo = and_(Count.key == found["key"], Count.etag == found["etag"])
    # Not the expectation: a nightly file says the same quantity anew.
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
    """The last audit with a number that this one may correct; None if there is none, or its auditor took it back."""
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
