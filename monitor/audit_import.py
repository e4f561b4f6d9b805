"""Import of audits, and everything that belongs to them, from a file that `audits export` wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from binwatch.audit_file import AUDIT_FILE_COLUMNS, AuditFileRow, CellError, RowKind, read_audit_file
from binwatch.errors import BinwatchError
from binwatch.records.audits import AuditAnswer, AuditReason, check_answer, clean_name, clean_note
from binwatch.records.engine import is_storable
from binwatch.records.past_audits import (
    ImportOutcome,
    PastAudit,
    PastDraw,
    PastEvent,
    PastKnownAnswer,
    PastRepeat,
    PastVariance,
    import_event,
)
from binwatch.records.settle_variances import PastStep
from binwatch.records.variances import OwnCount, TrailEntry, VarianceConflict, VarianceStep, check_trail
from binwatch.safe_csv import SafeCsvWriter

_MAX_LISTED_ERRORS = 10
"""Maximum number of bad rows listed in an error message."""
_REQUIRED_COLUMNS = tuple(name for name in AUDIT_FILE_COLUMNS if name not in ("belongs_to", "step", "source"))
"""Files of earlier releases, without repeats, variances and known quantities, lack the other columns."""
_IMPORT_ORDER = {PastAudit: 0, PastDraw: 0, PastRepeat: 1, PastVariance: 2, PastKnownAnswer: 3}
"""Audits are imported before the events that refer to them."""
Rows = list[AuditFileRow]


@dataclass(slots=True)
class ImportReport:
    """The result of an import."""

    file: Path
    outcomes: Counter[ImportOutcome] = field(default_factory=Counter)
    """Number of rows by outcome."""
    refused_file: Path | None = None
    """File that lists the refused rows; None if there are none."""

    @property
    def refused(self) -> int:
        """Number of rows that were refused."""
        return sum(rows for outcome, rows in self.outcomes.items() if outcome.is_refused)


def import_audits(file: Path, database: Engine, refused: Path | None = None) -> ImportReport:
    """Import all rows, each in its own transaction: in _IMPORT_ORDER, and then in the order of their times.

    The rows of a variance share a transaction. An interrupted import can be repeated. A file with a bad cell is refused
    as a whole. Rows that do not fit these records are listed in `refused`, by default FILE.refused.csv, which can be
    imported later. Raises BinwatchError.
    """
    refused_file = refused or file.with_name(file.name + ".refused.csv")
    if refused_file.resolve() == file.resolve():
        raise BinwatchError(f"{refused_file}: is the file to import, and would be lost; name another with --refused")
    file_rows = read_audit_file(file, _REQUIRED_COLUMNS, "write it with: python -m monitor audits export")
    rows = [replace(row, cells=dict.fromkeys(AUDIT_FILE_COLUMNS, "") | row.cells) for row in file_rows]
    report, refused_rows = ImportReport(file), list[tuple[AuditFileRow, ImportOutcome]]()
    for event_rows, event in sorted(_parse_events(rows), key=lambda item: (_IMPORT_ORDER[type(item[1])], item[1].at)):
        outcome = import_event(database, event)
        report.outcomes[outcome] += len(event_rows)
        if outcome.is_refused:
            refused_rows += [(row, outcome) for row in event_rows]
    if refused_rows:
        _write_refused(refused_file, sorted(refused_rows, key=lambda item: item[0].line))
        report.refused_file = refused_file
    else:
        refused_file.unlink(missing_ok=True)  # left by an earlier import: its rows are recorded by now
    return report


def _write_refused(file: Path, rows: list[tuple[AuditFileRow, ImportOutcome]]) -> None:
    try:
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = SafeCsvWriter(opened)
            writer.writerow([*AUDIT_FILE_COLUMNS, "line", "refused"])
            writer.writerows(
                [*(row.cells[name] for name in AUDIT_FILE_COLUMNS), row.line, outcome] for row, outcome in rows
            )
    except OSError as error:
        raise BinwatchError(
            f"{file}: the refused rows cannot be written there ({error.strerror}); name another file with --refused,"
            " and import again: rows that are already imported stay recorded"
        ) from error


def _parse_events(rows: Rows) -> list[tuple[Rows, PastEvent]]:
    """Return each event with its rows. Raises BinwatchError, which lists the bad rows."""
    events, errors = list[tuple[Rows, PastEvent]](), list[str]()
    for event_rows in _group_by_event(rows):
        try:
            events.append((event_rows, _parse_event(event_rows)))
        except CellError as error:
            errors.append(str(error))
    if errors:
        rest = [f"and {len(errors) - _MAX_LISTED_ERRORS:,} more"] if len(errors) > _MAX_LISTED_ERRORS else []
        advice = "nothing was imported: correct the file, and import again"
        raise BinwatchError("\n".join([*errors[:_MAX_LISTED_ERRORS], *rest, advice]))
    return events


def _group_by_event(rows: Rows) -> Iterator[Rows]:
    """Yield the rows of each event: all steps of a variance, or a single row."""
    variances = dict[tuple[str | None, ...], Rows]()
    for row in rows:
        if row.cells["kind"].strip() == RowKind.VARIANCE:
            key = tuple(row.text(name) for name in ("bucket", "bin", "belongs_to"))
            variances.setdefault(key, []).append(row)
        else:
            yield [row]
    yield from variances.values()


def _parse_event(rows: Rows) -> PastEvent:
    for row in rows:
        for column in AUDIT_FILE_COLUMNS:
            if not is_storable(row.cells[column]):
                raise row.cell_error(column, "text that the records can hold")
    row, *_ = rows
    bucket, key = row.text("bucket"), row.text("key")
    if bucket is None:
        raise row.cell_error("bucket", "the name of a bucket")
    common: dict[str, Any] = {
        "bucket": bucket,
        "bin_id": row.bin_id,
        "at": row.time("at"),
        "key": key,
        "etag": row.cells["etag"],
        "model": row.text("model"),
        "expected": row.quantity("expected") if row.text("expected") else None,
    }
    kind = row.choice("kind", RowKind)
    if kind is RowKind.AUDIT:
        return _parse_audit(row, common)
    if kind is RowKind.VARIANCE:
        return _parse_variance(rows, common)
    if key is None:
        raise row.cell_error("key", "the key of a photo; each draw, repeat and known quantity is of one")
    if kind is RowKind.DRAW:
        return PastDraw(**common, likelihood=row.likelihood("likelihood"))
    if kind is RowKind.REPEAT:
        auditor = _parse_name(row)
        if auditor is None:
            raise row.cell_error("auditor", "the name of the second auditor")
        return PastRepeat(**common, auditor=auditor, audited_at=row.time("belongs_to"))
    return PastKnownAnswer(**common, quantity=row.quantity("quantity"), source=row.cells["source"])


def _parse_variance(rows: Rows, common: dict[str, Any]) -> PastVariance:
    steps, opened_at, expected = (
        [_parse_step(row) for row in rows],
        rows[0].time("belongs_to"),
        rows[0].quantity("expected"),
    )
    for row in rows:
        if row.quantity("expected") != expected:
            raise row.cell_error("expected", f"{expected}, as in the first step of the variance")
    try:
        check_trail([step.entry for step in steps], expected)
    except (OwnCount, VarianceConflict) as error:
        raise rows[-1].cell_error("step", f"one that may follow in this variance: {error}") from error
    return PastVariance(**common | {"at": opened_at, "expected": expected}, steps=tuple(steps))


def _parse_step(row: AuditFileRow) -> PastStep:
    step = row.choice("step", VarianceStep)
    _check_cell(row, "note", lambda: clean_note(row.text("note")))
    quantity = None if step is VarianceStep.REJECTED else row.quantity("quantity")
    return PastStep(TrailEntry(step, quantity, _parse_name(row)), row.time("at"), row.text("note"))


def _parse_name(row: AuditFileRow) -> str | None:
    _check_cell(row, "auditor", lambda: clean_name(row.text("auditor")))
    return clean_name(row.text("auditor"))


def _parse_audit(row: AuditFileRow, common: dict[str, Any]) -> PastAudit:
    answer = row.choice("answer", AuditAnswer)
    quantity = row.quantity("quantity") if row.text("quantity") else None
    _check_cell(row, "quantity", lambda: check_answer(answer, quantity))
    _check_cell(row, "note", lambda: clean_note(row.text("note")))
    return PastAudit(
        **common,
        answer=answer,
        quantity=quantity,
        reason=row.choice("reason", AuditReason) if row.text("reason") else None,
        note=row.text("note"),
        auditor=_parse_name(row),
        blind=row.flag("blind"),
    )


def _check_cell(row: AuditFileRow, column: str, check: Callable[[], object]) -> None:
    try:
        check()
    except ValueError as error:
        raise row.cell_error(column, f"right: {error}") from error
