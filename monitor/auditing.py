"""Audits: entering them, and reading them back in the order in which they were entered."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection, select

from binwatch.counts import Outcome
from binwatch.keys import normalize_bin_id
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
    """What somebody found in a bin."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)

    bin: str = Field(min_length=1, max_length=1024, description="id of the bin, as 00123")
    bucket: str | None = Field(None, min_length=1, max_length=63, description="default: that of the settings")
    answer: AuditAnswer = Field(AuditAnswer.COUNT, description="what was found: a number, or why there is none")
    quantity: int | None = Field(
        None,
        ge=0,
        le=MAX_QUANTITY,
        strict=True,
        description="items that are really in the bin (`count`), or that can be seen (`at_least`); of no other answer",
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
        description="id of the photo that was looked at (`photo.id` of the bin): if another has come since, the audit"
        " is refused; without it, the items themselves were counted",
    )
    view: str | None = Field(
        None,
        max_length=8_000,
        description="token of the view that the answer was given in, from `GET /api/audit`: only with it an audit can"
        " be blind, and the photo must be that of the view",
    )
    auditor: Annotated[str | None, AfterValidator(clean_name)] = Field(
        None,
        max_length=MAX_NAME_LENGTH,
        description="who counted; a user who is signed in with a name cannot enter another",
    )

    @model_validator(mode="after")
    def _number_where_one_belongs(self) -> NewAudit:
        check_answer(self.answer, self.quantity)
        return self


class SavedAudit(BaseModel):
    """An audit as recorded, beside what it judges; None where there was nothing to judge."""

    id: int
    bucket: str
    bin: str
    answer: AuditAnswer
    quantity: int | None
    reason: AuditReason | None
    note: str | None
    blind: bool
    """The auditor had seen neither count nor expected quantity: only such audits measure accuracy."""
    auditor: str | None
    predicted: int | None
    """Index of the class that the model counted, 0 to 6; None also while the answer has no number."""
    expected: int | None
    of_count: Outcome | None
    of_inventory: Outcome | None
    is_new: bool
    """False if the same person had just given the same answer for the same photo."""


class ListedAudit(BaseModel):
    """An audit in the list of all."""

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
    """Id of the count that it judges."""
    at: datetime


class AuditList(BaseModel):
    """Audits, the newest first."""

    items: list[ListedAudit]
    next: int | None
    """For `after`; None on the last page."""


class NewDecision(BaseModel):
    """What an approver decides on a variance."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)

    decision: VarianceDecision
    quantity: int | None = Field(
        None,
        ge=0,
        le=MAX_QUANTITY,
        strict=True,
        description="the number to approve; if the variance's number has changed since, nothing is approved",
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
    def _reasons(self) -> NewDecision:
        if self.decision is VarianceDecision.REJECTED and self.note is None:
            raise ValueError("a rejection needs a note that says why")
        return self


class SavedDecision(BaseModel):
    """A variance that was approved or rejected."""

    id: int
    bucket: str
    bin_id: str
    state: VarianceState
    expected: int
    quantity: int | None
    """Items that were approved; of a rejected one, those that most people found, None if there is no such number."""


def was_blind(request: Request, authenticator: Authenticator, writer: Writer, audit: NewAudit, bucket: str) -> bool:
    """Whether an audit that is about to be entered is blind. Raises ForeignForm for the token of another view."""
    of = audit.bucket or bucket
    return authenticator.was_blind(request, writer, audit.view, of, normalize_bin_id(audit.bin), audit.photo)


def save(records: WritableRecords, audit: NewAudit, writer: Writer, settings: Settings, *, blind: bool) -> SavedAudit:
    """Record an audit. The settings give the default bucket and the tolerance, beyond which a variance is opened.

    Raises UnknownBin, StaleAudit, or RecordsDown.
    """
    of, auditor = audit.bucket or settings.bucket, writer.name or audit.auditor
    # In a view without a photo there was none; without a view, the items themselves were counted.
    seen = SeenPhoto.ANY if audit.photo is None and audit.view is None else audit.photo
    more: dict[str, Any] = {"answer": audit.answer, "reason": audit.reason, "note": audit.note, "blind": blind}
    more["tolerance"] = settings.variance_tolerance
    said = records.write(lambda engine: add_audit(engine, of, audit.bin, audit.quantity, auditor, seen, **more))
    # An auditor who could not tell may yet go and count.
    is_hidden = said.quantity is None
    return SavedAudit(
        id=said.id,
        bucket=of,
        bin=audit.bin,
        answer=said.answer,
        quantity=said.quantity,
        reason=audit.reason,
        note=audit.note,
        blind=said.blind,
        auditor=auditor,
        predicted=None if is_hidden else said.predicted,
        expected=None if is_hidden else said.expected,
        of_count=said.of_count,
        of_inventory=said.of_inventory,
        is_new=said.is_new,
    )


def save_decision(records: WritableRecords, variance_id: int, decision: NewDecision, approver: str) -> SavedDecision:
    """Approve or reject a variance. Raises UnknownVariance, OwnCount, VarianceConflict, or RecordsDown."""
    given = (variance_id, decision.decision, approver, decision.note, decision.quantity)
    return SavedDecision(**asdict(records.write(lambda engine: decide(engine, *given))))


def read_audits(connection: Connection, limit: int, after: int | None = None) -> AuditList:
    """At most `limit` audits that were entered before the one with the id `after`."""
    statement = select(Audit.__table__).order_by(Audit.id.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(Audit.id < after)
    rows = connection.execute(statement).mappings().all()
    items = [ListedAudit(**row, bin=row["bin_id"], photo=row["count_id"], at=row["audited_at"]) for row in rows[:limit]]
    return AuditList(items=items, next=items[-1].id if len(rows) > limit else None)
