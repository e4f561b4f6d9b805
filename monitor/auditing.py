"""Entering and listing audits, and decisions on variances."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection, select

from binwatch.counts import Outcome
from binwatch.keys import normalise_bin_id
from binwatch.metadata import MAX_QUANTITY
from binwatch.records.audits import (
    MAX_NAME_LENGTH,
    AuditAnswer,
    AuditReason,
    SeenPhoto,
    add_audit,
    check_answer,
    clean_name,
    clean_note,
)
from binwatch.records.settle_variances import decide
from binwatch.records.tables import Audit
from binwatch.records.variances import VarianceDecision, VarianceState
from binwatch.settings import Settings
from monitor.access.authentication import Authenticator, Writer
from monitor.records import MAX_ID, WritableRecords


class NewAudit(BaseModel):
    """A new audit, as entered."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)

    bin: str = Field(min_length=1, max_length=1024, description="id of the bin, such as 00123")
    bucket: str | None = Field(None, min_length=1, max_length=63, description="default: that of the settings")
    answer: AuditAnswer = Field(AuditAnswer.COUNT, description="what was found: a number, or why there is none")
    quantity: int | None = Field(
        None,
        ge=0,
        le=MAX_QUANTITY,
        strict=True,
        description="items in the bin (`count`), or items that can be seen (`at_least`); only for these answers",
    )
    reason: AuditReason | None = Field(None, description="why it was hard to tell")
    note: Annotated[str | None, AfterValidator(clean_note)] = Field(
        None, description="one line, 200 characters at most"
    )
    photo: int | None = Field(
        None,
        ge=1,
        le=MAX_ID,
        strict=True,
        description="id of the photo that was counted (`photo.id` of the bin): if there is a newer one, the audit is"
        " refused; without it, the items themselves were counted",
    )
    view: str | None = Field(
        None,
        max_length=8_000,
        description="token of the view in which the answer was given, from `GET /api/audit`: an audit without it is"
        " never blind, and the photo must be that of the view",
    )
    auditor: Annotated[str | None, AfterValidator(clean_name)] = Field(
        None,
        max_length=MAX_NAME_LENGTH,
        description="who counted; a user who is signed in with a name cannot enter another",
    )

    @model_validator(mode="after")
    def _check_quantity(self) -> NewAudit:
        check_answer(self.answer, self.quantity)
        return self


class SavedAudit(BaseModel):
    """A recorded audit with the count and expected quantity that it judges, None if there were none."""

    id: int
    bucket: str
    bin: str
    answer: AuditAnswer
    quantity: int | None
    reason: AuditReason | None
    note: str | None
    blind: bool
    """Whether the auditor had seen neither count nor expected quantity. Only such audits measure accuracy."""
    auditor: str | None
    predicted: int | None
    """Index of the class that the model counted, 0 to 6. This and `expected` are None if the answer has no number."""
    expected: int | None
    of_count: Outcome | None
    of_inventory: Outcome | None
    is_new: bool
    """False if it repeats the same person's latest answer for the same photo."""


class ListedAudit(BaseModel):
    """An audit in the list of audits."""

    id: int
    bucket: str
    bin: str
    answer: AuditAnswer
    quantity: int | None
    reason: AuditReason | None
    note: str | None
    blind: bool
    auditor: str | None
    photo: int | None
    """Id of the count that the audit judges."""
    at: datetime


class AuditList(BaseModel):
    """Audits, the newest first."""

    items: list[ListedAudit]
    next: int | None
    """Value of `after` for the next page; None on the last one."""


class NewDecision(BaseModel):
    """An approver's decision on a variance."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)

    decision: VarianceDecision
    quantity: int | None = Field(
        None,
        ge=0,
        le=MAX_QUANTITY,
        strict=True,
        description="number to approve; if the number of the variance has changed, nothing is approved",
    )
    note: Annotated[str | None, AfterValidator(clean_note)] = Field(
        None, description="one line, 200 characters at most; a rejection needs one"
    )
    approver: Annotated[str | None, AfterValidator(clean_name)] = Field(
        None,
        max_length=MAX_NAME_LENGTH,
        description="who decides; a user who is signed in with a name cannot enter another",
    )

    @model_validator(mode="after")
    def _check_note(self) -> NewDecision:
        if self.decision is VarianceDecision.REJECTED and self.note is None:
            raise ValueError("a rejection needs a note that says why")
        return self


class SavedDecision(BaseModel):
    """A variance after the decision."""

    id: int
    bucket: str
    bin_id: str
    state: VarianceState
    expected: int
    quantity: int | None
    """Approved number of items; for a rejected variance the number that most people found, None if there is none."""


def was_blind(request: Request, authenticator: Authenticator, writer: Writer, audit: NewAudit, bucket: str) -> bool:
    """Return whether an audit that is being entered is blind. Raises ForeignForm for the token of another view."""
    bin_id = normalise_bin_id(audit.bin)
    return authenticator.was_blind(request, writer, audit.view, audit.bucket or bucket, bin_id, audit.photo)


def save(records: WritableRecords, audit: NewAudit, writer: Writer, settings: Settings, *, blind: bool) -> SavedAudit:
    """Record an audit. The settings contain the default bucket, and the tolerance above which a variance is opened.

    Raises UnknownBin, StaleAudit, or RecordsDown.
    """
    bucket, auditor = audit.bucket or settings.bucket, writer.name or audit.auditor
    # With a view but no photo, the bin had no photo; without a view, the items themselves were counted.
    seen = SeenPhoto.ANY if audit.photo is None and audit.view is None else audit.photo
    details: dict[str, Any] = {"answer": audit.answer, "reason": audit.reason, "note": audit.note, "blind": blind}
    details["tolerance"] = settings.variance_tolerance
    saved = records.write(lambda engine: add_audit(engine, bucket, audit.bin, audit.quantity, auditor, seen, **details))
    # Hide them from an auditor who entered no number, and may still count the bin blind.
    is_hidden = saved.quantity is None
    return SavedAudit(
        id=saved.id,
        bucket=bucket,
        bin=audit.bin,
        answer=saved.answer,
        quantity=saved.quantity,
        reason=audit.reason,
        note=audit.note,
        blind=saved.blind,
        auditor=auditor,
        predicted=None if is_hidden else saved.predicted,
        expected=None if is_hidden else saved.expected,
        of_count=saved.of_count,
        of_inventory=saved.of_inventory,
        is_new=saved.is_new,
    )


def save_decision(records: WritableRecords, variance_id: int, decision: NewDecision, approver: str) -> SavedDecision:
    """Approve or reject a variance. Raises UnknownVariance, OwnCount, VarianceConflict, or RecordsDown."""
    arguments = (variance_id, decision.decision, approver, decision.note, decision.quantity)
    return SavedDecision(**asdict(records.write(lambda engine: decide(engine, *arguments))))


def read_audits(connection: Connection, limit: int, after: int | None = None) -> AuditList:
    """Read at most `limit` audits, the newest first, that were entered before the one with the id `after`."""
    statement = select(Audit.__table__).order_by(Audit.id.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(Audit.id < after)
    rows = connection.execute(statement).mappings().all()
    items = [ListedAudit(**row, bin=row["bin_id"], photo=row["count_id"], at=row["audited_at"]) for row in rows[:limit]]
    return AuditList(items=items, next=items[-1].id if len(rows) > limit else None)
