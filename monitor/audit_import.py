"""Audits and random draws from a file of `audits export` into the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from binwatch.audit_file import COLUMNS, AuditFileRow, BadCell, RowKind, read_rows
from binwatch.errors import BinwatchError
from binwatch.records.audits import AuditAnswer, AuditReason, check_answer, plain_name, plain_note
from binwatch.records.engine import can_hold
from binwatch.records.past_audits import ImportOutcome, PastAudit, PastDraw, import_event
from binwatch.safe_csv import SafeCsvWriter

_NAMED = 10
"""Bad rows that a message names."""


@dataclass(slots=True)
class ImportReport:
    """What became of the rows of a file."""

    file: Path
    outcomes: Counter[ImportOutcome] = field(default_factory=Counter)
    refused_file: Path | None = None
    """None if no row was refused."""

    @property
    def refused(self) -> int:
        """Rows of which nothing was recorded."""
        return sum(rows for outcome, rows in self.outcomes.items() if outcome.is_refused)


def import_audits(file: Path, database: Engine, refused: Path | None = None) -> ImportReport:
    """Import all rows in the order of their times, each in a transaction of its own: the same command again continues.

    A file with a bad cell is refused as a whole. Rows that do not fit these records are listed in `refused`, by default
    FILE.refused.csv, which can be imported later. Raises BinwatchError.
    """
    listed = refused or file.with_name(file.name + ".refused.csv")
    if listed.resolve() == file.resolve():
        raise BinwatchError(f"{listed}: is the file to import, and would be lost; name another one with --refused")
    rows = read_rows(file, COLUMNS, "write it with: python -m monitor audits export")
    report, left = ImportReport(file), list[tuple[AuditFileRow, ImportOutcome]]()
    for row, event in sorted(zip(rows, _parsed(rows), strict=True), key=lambda one: one[1].at):
        outcome = import_event(database, event)
        report.outcomes[outcome] += 1
        if outcome.is_refused:
            left.append((row, outcome))
    if left:
        _list(listed, sorted(left, key=lambda one: one[0].line))
        report.refused_file = listed
    else:
        listed.unlink(missing_ok=True)  # of an earlier import: it would speak of rows that are recorded by now
    return report


def _list(file: Path, rows: list[tuple[AuditFileRow, ImportOutcome]]) -> None:
    try:
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = SafeCsvWriter(opened)
            writer.writerow([*COLUMNS, "line", "refused"])
            writer.writerows([*(row.cells[name] for name in COLUMNS), row.line, why] for row, why in rows)
    except OSError as error:
        raise BinwatchError(
            f"{file}: the rows that were not imported cannot be listed there ({error.strerror}); name another file with"
            " --refused, and import again: what was imported by then is recorded"
        ) from error


def _parsed(rows: list[AuditFileRow]) -> list[PastAudit | PastDraw]:
    events, bad = list[PastAudit | PastDraw](), list[str]()
    for row in rows:
        try:
            events.append(_event(row))
        except BadCell as error:
            bad.append(str(error))
    if bad:
        more = [f"and {len(bad) - _NAMED:,} more"] if len(bad) > _NAMED else []
        advice = "nothing was imported: correct the file, and import again"
        raise BinwatchError("\n".join([*bad[:_NAMED], *more, advice]))
    return events


def _event(row: AuditFileRow) -> PastAudit | PastDraw:
    for column in COLUMNS:
        if not can_hold(row.cells[column]):
            raise row.bad(column, "text that the records can hold")
    bucket, key = row.text("bucket"), row.text("key")
    if bucket is None:
        raise row.bad("bucket", "the name of a bucket")
    common: dict[str, Any] = {
        "bucket": bucket,
        "bin_id": row.bin_id,
        "at": row.moment("at"),
        "key": key,
        "etag": row.cells["etag"],
        "model": row.text("model"),
        "expected": row.items("expected") if row.text("expected") else None,
    }
    if row.choice("kind", RowKind) is RowKind.AUDIT:
        return _audit(row, common)
    if key is None:
        raise row.bad("key", "the key of a photo; each draw is of one")
    return PastDraw(**common, likelihood=row.likelihood("likelihood"))


def _audit(row: AuditFileRow, common: dict[str, Any]) -> PastAudit:
    answer = row.choice("answer", AuditAnswer)
    quantity = row.items("quantity") if row.text("quantity") else None
    _checked(row, "quantity", lambda: check_answer(answer, quantity))
    _checked(row, "note", lambda: plain_note(row.text("note")))
    _checked(row, "auditor", lambda: plain_name(row.text("auditor")))
    return PastAudit(
        **common,
        answer=answer,
        quantity=quantity,
        reason=row.choice("reason", AuditReason) if row.text("reason") else None,
        note=row.text("note"),
        auditor=plain_name(row.text("auditor")),
        blind=row.flag("blind"),
    )


def _checked(row: AuditFileRow, column: str, check: Callable[[], object]) -> None:
    try:
        check()
    except ValueError as error:
        raise row.bad(column, f"right: {error}") from error
