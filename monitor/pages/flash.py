"""Flash messages: the result of the form that led to a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query
from sqlalchemy import Connection

from monitor.access.authentication import Access, CurrentAccess
from monitor.auditing import read_audits
from monitor.forms import FormProblem
from monitor.records import MAX_ID
from monitor.services import CurrentServices
from monitor.views.bins import BinAudit, read_bin

PROBLEMS = {
    FormProblem.QUANTITY: "Not saved: that is no number of items. Enter a whole number, 0 or more, or choose another"
    " answer.",
    FormProblem.ANSWER: "Not saved: that answer has no number, or there is no such answer. Enter it again.",
    FormProblem.AT_LEAST: 'Not saved: "at least" must be 1 or more; at least 0 is true of every bin. If you see no item'
    ' and cannot tell whether there are any, choose "the photo does not tell".',
    FormProblem.NOTE: "Not saved: a note has 200 characters at most, all of them printable. Enter the answer again.",
    FormProblem.NAME: "Enter your name: 100 characters at most, all of them printable. It is kept with each audit.",
    FormProblem.STALE: "Not saved: a newer photo of this bin has arrived. Look at it and enter the count again.",
    FormProblem.UNKNOWN_BIN: "Not saved: nothing is recorded of this bin.",
    FormProblem.TOKEN: "That is not the token. Ask the person who runs Binwatch for it.",
    FormProblem.SIGNED_OUT: "You are not signed in any more. Sign in, and enter the count again.",
    FormProblem.DECIDED: "Nothing was decided: the variance has changed, or no two people have found the same"
    " number. Look at it again.",
    FormProblem.OWN_COUNT: "Nothing was decided: you have counted this bin, so somebody else has to.",
    FormProblem.DECISION: "Nothing was decided: a rejection needs a note that says why. A note has 200 characters at"
    " most.",
    FormProblem.FOREIGN: "Not saved: the form was of an earlier session. Enter the count again.",
}


@dataclass(frozen=True, slots=True)
class Saved:
    """The audit that was just saved."""

    bucket: str
    bin_id: str
    audit: BinAudit
    shows_numbers: bool
    """Whether to show count and expected quantity; False for blind auditors who gave no number and may still count."""


@dataclass(frozen=True, slots=True)
class _FlashMessages:
    """Flash messages of a page, of which at most one is set."""

    saved: Saved | None = None
    problem: str | None = None


def _flash_messages(
    services: CurrentServices,
    access: CurrentAccess,
    saved: Annotated[int | None, Query(ge=1, le=MAX_ID - 1)] = None,
    problem: Annotated[FormProblem | None, Query()] = None,
) -> _FlashMessages:
    if saved is not None:
        return _FlashMessages(saved=services.records.read(lambda connection: _read_saved(connection, saved, access)))
    return problem_message(problem)


def problem_message(problem: FormProblem | None) -> _FlashMessages:
    """Return the message that says why a form was not saved; no message if `problem` is None."""
    return _FlashMessages(problem=PROBLEMS[problem] if problem else None)


def _read_saved(connection: Connection, audit_id: int, access: Access) -> Saved | None:
    items = read_audits(connection, 1, after=audit_id + 1).items
    if not items or items[0].id != audit_id:
        return None
    entry = items[0]
    if access.is_blind and access.writer and entry.auditor != access.writer.name:
        return None
    audits = read_bin(connection, entry.bucket, entry.bin, 0.0).audits
    audit = next((audit for audit in audits if audit.id == audit_id), None)
    shows_numbers = entry.quantity is not None or not access.is_blind
    return Saved(entry.bucket, entry.bin, audit, shows_numbers) if audit else None


FlashMessages = Annotated[_FlashMessages, Depends(_flash_messages)]
"""Type of a route's parameter that receives the flash messages."""
