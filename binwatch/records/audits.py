"""Audits: what a person found in a bin, the truth that counts and inventory are both measured against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, RowMapping, select

from binwatch.counts import Outcome, class_of, error_of, outcome_of
from binwatch.errors import BinwatchError
from binwatch.records.engine import WRITE
from binwatch.records.tables import Audit, AuditTotal, Bin, Count, Expectation
from binwatch.records.writing import Row, add_to_totals, errors_of, insert_into, summed


class Subject(StrEnum):
    """What an audit judges."""

    COUNT = "count"
    INVENTORY = "inventory"


class UnknownBin(BinwatchError):
    """Neither a photo nor an expected quantity of this bin was ever recorded: mistyped, or in another bucket."""


@dataclass(frozen=True, slots=True)
class Audited:
    """One audit as recorded, beside what it judges; None where there was nothing to judge."""

    quantity: int
    predicted: int | None
    expected: int | None

    @property
    def of_count(self) -> Outcome | None:
        """How the count compares with the truth."""
        return None if self.predicted is None else outcome_of(self.predicted, self.quantity)

    @property
    def of_inventory(self) -> Outcome | None:
        """How the expected quantity compares with the truth."""
        return None if self.expected is None else outcome_of(class_of(self.expected), self.quantity)


def add_audit(engine: Engine, bucket: str, bin_id: str, quantity: int, auditor: str | None = None) -> Audited:
    """Record that somebody found `quantity` items in a bin. Raises UnknownBin; ValueError if negative."""
    class_of(quantity)
    now = datetime.now(UTC)
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        found = _locked(connection, bucket, bin_id)
        connection.execute(
            insert_into(connection, Audit).values(
                bucket=bucket,
                bin_id=bin_id,
                quantity=quantity,
                auditor=auditor,
                count_id=None if found["predicted"] is None else found["count_id"],
                expectation_id=None if found["quantity"] is None else found["expectation_id"],
                audited_at=now,
            )
        )
        rows = _judgements(found, quantity)
        labels = ("subject", "model_version", "audited_class", "outcome")
        add_to_totals(connection, AuditTotal, summed(labels, now, rows))
    return Audited(quantity, found["predicted"], found["quantity"])


def _locked(connection: Connection, bucket: str, bin_id: str) -> RowMapping:
    """What the bin shows and should hold; no count or expectation can arrive before the audit is recorded."""
    where = (Bin.bucket == bucket, Bin.bin_id == bin_id)
    if connection.execute(select(Bin.bin_id).where(*where).with_for_update()).one_or_none() is None:
        raise UnknownBin(
            f"no photo and no expected quantity of bin {bin_id!r} in bucket {bucket!r} is recorded; a bin's id is the"
            " name of its photo without folder and ending, as 00123"
        )
    statement = (
        select(Bin.count_id, Bin.expectation_id, Count.predicted, Count.model_version, Expectation.quantity)
        .select_from(Bin)
        .outerjoin(Count, Count.id == Bin.count_id)
        .outerjoin(Expectation, Expectation.id == Bin.expectation_id)
        .where(*where)
    )
    return connection.execute(statement).mappings().one()


def _judgements(found: RowMapping, quantity: int) -> list[Row]:
    """What the audit adds to the totals: of the count and of the inventory, as far as there are any."""
    judged = []
    if found["predicted"] is not None:
        judged.append((Subject.COUNT, found["model_version"], found["predicted"]))
    if found["quantity"] is not None:
        judged.append((Subject.INVENTORY, "", class_of(found["quantity"])))
    return [
        {
            "subject": subject.value,
            "model_version": model,
            "audited_class": class_of(quantity),
            "outcome": outcome_of(said, quantity).value,
            "audits": 1,
        }
        | errors_of(error_of(said, quantity))
        for subject, model, said in judged
    ]
