"""Audits, and what belongs to them, from a file of `audits export` into the records."""

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

_NAMED = 10
"""Bad rows that a message names."""
_NEEDED = tuple(name for name in AUDIT_FILE_COLUMNS if name not in ("belongs_to", "step", "source"))
"""A file without repeats, variances and known quantities, as earlier ones were, need not have the others."""
_RANKS = {PastAudit: 0, PastDraw: 0, PastRepeat: 1, PastVariance: 2, PastKnownAnswer: 3}
"""What belongs to audits comes after them."""
Rows = list[AuditFileRow]


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

    The rows of a variance are one transaction. A file with a bad cell is refused as a whole. Rows that do not fit these
    records are listed in `refused`, by default FILE.refused.csv, which can be imported later. Raises BinwatchError.
    """
    listed = refused or file.with_name(file.name + ".refused.csv")
    if listed.resolve() == file.resolve():
        raise BinwatchError(f"{listed}: is the file to import, and would be lost; name another one with --refused")
    found = read_audit_file(file, _NEEDED, "write it with: python -m monitor audits export")
    rows = [replace(row, cells=dict.fromkeys(AUDIT_FILE_COLUMNS, "") | row.cells) for row in found]
    report, left = ImportReport(file), list[tuple[AuditFileRow, ImportOutcome]]()
    for of_event, event in sorted(_parsed(rows), key=lambda one: (_RANKS[type(one[1])], one[1].at)):
        outcome = import_event(database, event)
        report.outcomes[outcome] += len(of_event)
        if outcome.is_refused:
            left += [(row, outcome) for row in of_event]
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
            writer.writerow([*AUDIT_FILE_COLUMNS, "line", "refused"])
            writer.writerows([*(row.cells[name] for name in AUDIT_FILE_COLUMNS), row.line, why] for row, why in rows)
    except OSError as error:
        raise BinwatchError(
            f"{file}: the rows that were not imported cannot be listed there ({error.strerror}); name another file with"
            " --refused, and import again: what was imported by then is recorded"
        ) from error


def _parsed(rows: Rows) -> list[tuple[Rows, PastEvent]]:
    """Each event with the rows that it is from."""
    events, bad = list[tuple[Rows, PastEvent]](), list[str]()
    for of_event in _grouped(rows):
        try:
            events.append((of_event, _event(of_event)))
        except CellError as error:
            bad.append(str(error))
    if bad:
        more = [f"and {len(bad) - _NAMED:,} more"] if len(bad) > _NAMED else []
        advice = "nothing was imported: correct the file, and import again"
        raise BinwatchError("\n".join([*bad[:_NAMED], *more, advice]))
    return events


def _grouped(rows: Rows) -> Iterator[Rows]:
    """The rows of a variance together, and each other row alone."""
    variances = dict[tuple[str | None, ...], Rows]()
    for row in rows:
        if row.cells["kind"].strip() == RowKind.VARIANCE:
            key = tuple(row.text(name) for name in ("bucket", "bin", "belongs_to"))
            variances.setdefault(key, []).append(row)
        else:
            yield [row]
    yield from variances.values()


def _event(rows: Rows) -> PastEvent:
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
        return _audit(row, common)
    if kind is RowKind.VARIANCE:
        return _variance(rows, common)
    if key is None:
        raise row.cell_error("key", "the key of a photo; each draw, repeat and known quantity is of one")
    if kind is RowKind.DRAW:
        return PastDraw(**common, likelihood=row.likelihood("likelihood"))
    if kind is RowKind.REPEAT:
        auditor = _person(row)
        if auditor is None:
            raise row.cell_error("auditor", "the name of the second auditor")
        return PastRepeat(**common, auditor=auditor, audited_at=row.time("belongs_to"))
    return PastKnownAnswer(**common, quantity=row.quantity("quantity"), source=row.cells["source"])


def _variance(rows: Rows, common: dict[str, Any]) -> PastVariance:
    steps, opened_at, expected = [_step(row) for row in rows], rows[0].time("belongs_to"), rows[0].quantity("expected")
    for row in rows:
        if row.quantity("expected") != expected:
            raise row.cell_error("expected", f"{expected}, as in the first step of the variance")
    try:
        check_trail([step.entry for step in steps], expected)
    except (OwnCount, VarianceConflict) as error:
        raise rows[-1].cell_error("step", f"one that may follow in this variance: {error}") from error
    return PastVariance(**common | {"at": opened_at, "expected": expected}, steps=tuple(steps))


def _step(row: AuditFileRow) -> PastStep:
    step = row.choice("step", VarianceStep)
    _checked(row, "note", lambda: clean_note(row.text("note")))
    quantity = None if step is VarianceStep.REJECTED else row.quantity("quantity")
    return PastStep(TrailEntry(step, quantity, _person(row)), row.time("at"), row.text("note"))


def _person(row: AuditFileRow) -> str | None:
    _checked(row, "auditor", lambda: clean_name(row.text("auditor")))
    return clean_name(row.text("auditor"))


def _audit(row: AuditFileRow, common: dict[str, Any]) -> PastAudit:
    answer = row.choice("answer", AuditAnswer)
    quantity = row.quantity("quantity") if row.text("quantity") else None
    _checked(row, "quantity", lambda: check_answer(answer, quantity))
    _checked(row, "note", lambda: clean_note(row.text("note")))
    return PastAudit(
        **common,
        answer=answer,
        quantity=quantity,
        reason=row.choice("reason", AuditReason) if row.text("reason") else None,
        note=row.text("note"),
        auditor=_person(row),
        blind=row.flag("blind"),
    )


def _checked(row: AuditFileRow, column: str, check: Callable[[], object]) -> None:
    try:
        check()
    except ValueError as error:
        raise row.cell_error(column, f"right: {error}") from error
