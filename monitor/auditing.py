"""Audits: entering them, and reading them back in the order in which they were entered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Connection, select

from binwatch.counts import Outcome
from binwatch.metadata import MAX_QUANTITY
from binwatch.records.audits import Seen, add_audit
from binwatch.records.tables import Audit
from monitor.access.authentication import MAX_NAME, Writer, plain_name
from monitor.records import WritableRecords

MAX_ID = 2**63 - 1


class NewAudit(BaseModel):
    """What somebody found in a bin."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)

    bin: str = Field(min_length=1, max_length=1024, description="id of the bin, as 00123")
    bucket: str | None = Field(None, min_length=1, max_length=63, description="default: that of the settings")
    quantity: int = Field(ge=0, le=MAX_QUANTITY, strict=True, description="items that are really in the bin")
    photo: int | None = Field(
        None,
        ge=1,
        le=MAX_ID,
        strict=True,
        description="id of the photo that was looked at (`photo.id` of the bin): if another has come since, the audit"
        " is refused; without it, the items themselves were counted",
    )
    auditor: Annotated[str | None, AfterValidator(plain_name)] = Field(
        None, max_length=MAX_NAME, description="who counted; a user who is signed in with a name cannot enter another"
    )


class SavedAudit(BaseModel):
    """An audit as recorded, beside what it judges; None where there was nothing to judge."""

    id: int
    bucket: str
    bin: str
    quantity: int
    auditor: str | None
    predicted: int | None
    """Index of the class that the model counted, 0 to 6."""
    expected: int | None
    of_count: Outcome | None
    of_inventory: Outcome | None
    is_new: bool
    """False if the same person had just said the same of the same photo."""


class ListedAudit(BaseModel):
    """An audit in the list of all."""

    id: int
    bucket: str
    bin: str
    quantity: int
    auditor: str | None
    photo: int | None
    """Id of the count that it judges."""
    at: datetime


class AuditList(BaseModel):
    """Audits, the newest first."""

    items: list[ListedAudit]
    next: int | None
    """For `after`; None on the last page."""


def save(records: WritableRecords, audit: NewAudit, writer: Writer, bucket: str) -> SavedAudit:
    """Record an audit; `bucket` is that of audits that name none.

    Raises UnknownBin, StaleAudit, or RecordsDown.
    """
    of, auditor = audit.bucket or bucket, writer.name or audit.auditor
    seen = Seen.WHATEVER if audit.photo is None else audit.photo
    said = records.write(lambda engine: add_audit(engine, of, audit.bin, audit.quantity, auditor, seen))
    return SavedAudit(
        id=said.id,
        bucket=of,
        bin=audit.bin,
        quantity=said.quantity,
        auditor=auditor,
        predicted=said.predicted,
        expected=said.expected,
        of_count=said.of_count,
        of_inventory=said.of_inventory,
        is_new=said.is_new,
    )


def read_audits(connection: Connection, limit: int, after: int | None = None) -> AuditList:
    """At most `limit` audits that were entered before the one with the id `after`."""
    statement = select(Audit.__table__).order_by(Audit.id.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(Audit.id < after)
    rows = connection.execute(statement).mappings().all()
    items = [
        ListedAudit(
            id=row["id"],
            bucket=row["bucket"],
            bin=row["bin_id"],
            quantity=row["quantity"],
            auditor=row["auditor"],
            photo=row["count_id"],
            at=row["audited_at"],
        )
        for row in rows[:limit]
    ]
    return AuditList(items=items, next=items[-1].id if len(rows) > limit else None)
