"""Audits: what a person found in a bin, the truth that counts and inventory are both measured against.

The ledger keeps every audit. The sums hold the last one of each count, and the last one of each expected quantity on
each photo: a corrected audit never was the truth, so what it said is taken back.
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
from binwatch.records.settlement import Row
from binwatch.records.tables import Audit, Bin, ConfusionTotal, Count, CurrentComparison, Expectation
from binwatch.records.totals import add_to_totals, confusion
from binwatch.records.upsert import insert_into


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

    quantity: int
    predicted: int | None
    expected: int | None
    id: int = 0
    """Of the audit in the records."""
    is_new: bool = True
    """False if the same person had said just that of the same photo before."""

    @property
    def of_count(self) -> Outcome | None:
        """How the count compares with the truth."""
        return None if self.predicted is None else outcome_of(self.predicted, self.quantity)

    @property
    def of_inventory(self) -> Outcome | None:
        """How the expected quantity compares with the truth."""
        return None if self.expected is None else outcome_by(self.expected - self.quantity)


def add_audit(
    engine: Engine,
    bucket: str,
    bin_id: str,
    quantity: int,
    auditor: str | None = None,
    seen: int | Seen | None = Seen.WHATEVER,
) -> Audited:
    """Record that somebody found `quantity` items in a bin. Saying the same again at once changes nothing.

    `seen` is the id of the count whose photo was looked at, None if the bin had no photo. Raises UnknownBin; StaleAudit
    if a newer photo has arrived; ValueError if `quantity` is negative.
    """
    class_of(quantity)
    bin_id = one_bin_id(bin_id)
    now = datetime.now(UTC)
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        found = _locked(connection, bucket, bin_id)
        _check_seen(connection, found, bin_id, seen)
        row = {
            "bucket": bucket,
            "bin_id": bin_id,
            "quantity": quantity,
            "auditor": auditor,
            "count_id": None if found["predicted"] is None else found["count_id"],
            "expectation_id": None if found["quantity"] is None else found["expectation_id"],
        }
        said = _said_before(connection, row)
        audit_id = said if said is not None else _append(connection, row, found, now)
    return Audited(quantity, found["predicted"], found["quantity"], audit_id, is_new=said is None)


def _check_seen(connection: Connection, found: RowMapping, bin_id: str, seen: int | Seen | None) -> None:
    """A newer model's count of the same photo is no other photo."""
    if isinstance(seen, Seen) or seen == found["count_id"]:
        return
    photo = select(Count.bucket, Count.key, Count.etag)
    was = connection.execute(photo.where(Count.id == seen)).one_or_none()
    now = connection.execute(photo.where(Count.id == found["count_id"])).one_or_none()
    if was is None or was != now:
        raise StaleAudit(f"bin {bin_id!r} has another photo than the one you saw; look at it and save again")


def _said_before(connection: Connection, row: Row) -> int | None:
    """Id of the bin's last audit if it says the same: a form that was sent twice, a key that was hit twice."""
    where = (Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"])
    last = connection.execute(select(Audit.__table__).where(*where).order_by(Audit.id.desc()).limit(1)).mappings()
    found = last.one_or_none()
    return found["id"] if found and all(found[name] == value for name, value in row.items()) else None


def _append(connection: Connection, row: Row, found: RowMapping, now: datetime) -> int:
    judged = _judged(connection, row, found)
    statement = insert_into(connection, Audit).values(**row, audited_at=now).returning(Audit.id)
    audit_id: int = connection.execute(statement).scalar_one()
    current = (CurrentComparison.bucket == row["bucket"], CurrentComparison.bin_id == row["bin_id"])
    connection.execute(update(CurrentComparison).where(*current).values(audit_id=audit_id))
    add_to_totals(connection, ConfusionTotal, judged, now)
    return audit_id


def _locked(connection: Connection, bucket: str, bin_id: str) -> RowMapping:
    """What the bin shows and should hold; no count or expectation can arrive before the audit is recorded."""
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


def _judged(connection: Connection, row: Row, found: RowMapping) -> list[Row]:
    """What the audit adds to `confusion_totals`, and what it takes back.

    It corrects the last audits of this very count, and of this expected quantity on this photo.
    """
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
        changes.append(confusion(TruthSource.AUDIT, model, class_of(row["quantity"]), predicted))
        before = _last_quantity(connection, row, corrected)
        if before is not None:
            changes.append(confusion(TruthSource.AUDIT, model, class_of(before), predicted, weight=-1))
    return changes


def _last_quantity(connection: Connection, row: Row, condition: ColumnElement[bool]) -> int | None:
    where = (Audit.bucket == row["bucket"], Audit.bin_id == row["bin_id"], condition)
    statement = (
        select(Audit.quantity)
        .outerjoin(Count, Count.id == Audit.count_id)
        .outerjoin(Expectation, Expectation.id == Audit.expectation_id)
        .where(*where)
    )
    quantity: int | None = connection.execute(statement.order_by(Audit.id.desc()).limit(1)).scalar()
    return quantity
