"""Export of a bucket's audits and everything that belongs to them, as CSV: for other records and for training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, aliased

from binwatch.audit_file import AUDIT_FILE_COLUMNS, RowKind
from binwatch.console import printable_stdout
from binwatch.errors import BinwatchError
from binwatch.records.tables import (
    Audit,
    AuditDraw,
    AuditRepeat,
    Bin,
    Count,
    Expectation,
    KnownAnswer,
    Variance,
    VarianceEntry,
)
from binwatch.safe_csv import SafeCsvWriter
from monitor.records import Records

_CHUNK_ROWS = 5_000


@dataclass(slots=True)
class ExportReport:
    """What was exported."""

    file: Path | None
    """None for standard output."""
    rows: Counter[RowKind] = field(default_factory=Counter)
    """Number of rows by kind. A variance has a row per step."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Query for the rows of one kind. Its columns are named like those of the file."""

    statement: Select[*tuple[Any, ...]]
    bucket: InstrumentedAttribute[str]
    order: tuple[InstrumentedAttribute[Any], ...]
    """Columns to sort by, which are unique among the rows."""


def export_audits(records: Records, bucket: str, file: Path | None) -> ExportReport:
    """Write everything that belongs to the audits of a bucket, and then the audits themselves.

    Writes to standard output if `file` is None. Raises BinwatchError.
    """
    report = ExportReport(file)
    if file is None:
        _write(SafeCsvWriter(printable_stdout(), line_end="\n"), records, bucket, report)
        return report
    partial_file = file.with_name(file.name + ".partial")
    try:
        with partial_file.open("w", encoding="utf-8", newline="") as opened:
            _write(SafeCsvWriter(opened), records, bucket, report)
        partial_file.replace(file)
    except OSError as error:
        raise BinwatchError(f"{file}: cannot be written ({error.strerror}); name another file") from error
    finally:
        partial_file.unlink(missing_ok=True)
    return report


def _write(writer: SafeCsvWriter, records: Records, bucket: str, report: ExportReport) -> None:
    writer.writerow(AUDIT_FILE_COLUMNS)
    for kind, source in _sources().items():
        for row in _rows(records, bucket, source):
            cells = row | {"kind": kind, "latest_photo": _is_latest(row)}
            writer.writerow([_cell(cells.get(name)) for name in AUDIT_FILE_COLUMNS])
            report.rows[kind] += 1


def _is_latest(row: dict[str, Any]) -> bool | None:
    """Return whether the photo is still its bin's latest; None without a photo, or if the kind does not need it."""
    if "key_now" not in row or row["key"] is None:
        return None
    return (row["key"], row["etag"]) == (row["key_now"], row["etag_now"])


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    return int(value) if isinstance(value, bool) else value


def _rows(records: Records, bucket: str, source: _Source) -> Iterator[dict[str, Any]]:
    """Yield the rows of a kind. They are read in chunks, because reads of the records have a deadline."""
    keys = [column.label(f"key_{index}") for index, column in enumerate(source.order)]
    statement = source.statement.add_columns(*keys).where(source.bucket == bucket)
    statement = statement.order_by(*source.order).limit(_CHUNK_ROWS)
    rows = records.read(partial(_read_chunk, statement))
    while rows:
        yield from map(dict, rows)
        last = tuple_(*(literal(rows[-1][key.name]) for key in keys))
        rows = records.read(partial(_read_chunk, statement.where(tuple_(*source.order) > last)))


def _read_chunk(statement: Select[*tuple[Any, ...]], connection: Connection) -> list[RowMapping]:
    return list(connection.execute(statement).mappings().all())


def _sources() -> dict[RowKind, _Source]:
    """Return the queries in the order in which they are read.

    Audits are read last. Each read is a transaction of its own, and if a repeat or a variance is in the file, its audit
    must be too, even if it was entered during the export: an import would refuse it otherwise.
    """
    answer_columns = (Audit.answer, Audit.quantity, Audit.reason, Audit.note, Audit.auditor, Audit.blind)
    return {
        RowKind.DRAW: _Source(
            _with_photos(AuditDraw, AuditDraw.drawn_at.label("at"), AuditDraw.likelihood),
            AuditDraw.bucket,
            (AuditDraw.id,),
        ),
        RowKind.REPEAT: _Source(
            select(Audit.bucket, Audit.bin_id.label("bin"), Audit.audited_at.label("belongs_to"))
            .add_columns(AuditRepeat.auditor, AuditRepeat.given_at.label("at"))
            .add_columns(Count.key, Count.etag, Count.model_version.label("model"))
            .join_from(AuditRepeat, Audit, Audit.id == AuditRepeat.audit_id)
            .join(Count, Count.id == Audit.count_id),
            Audit.bucket,
            (AuditRepeat.audit_id,),
        ),
        RowKind.VARIANCE: _Source(
            select(Variance.bucket, Variance.bin_id.label("bin"), Variance.opened_at.label("belongs_to"))
            .add_columns(Variance.expected, VarianceEntry.step, VarianceEntry.quantity, VarianceEntry.note)
            .add_columns(VarianceEntry.person.label("auditor"), VarianceEntry.at)
            .join_from(VarianceEntry, Variance, Variance.id == VarianceEntry.variance_id),
            Variance.bucket,
            (VarianceEntry.variance_id, VarianceEntry.id),
        ),
        RowKind.KNOWN: _Source(
            select(KnownAnswer.bucket, KnownAnswer.bin_id.label("bin"), KnownAnswer.loaded_at.label("at")).add_columns(
                KnownAnswer.key, KnownAnswer.etag, KnownAnswer.quantity, KnownAnswer.source
            ),
            KnownAnswer.bucket,
            (KnownAnswer.key, KnownAnswer.etag),
        ),
        RowKind.AUDIT: _Source(
            _with_photos(Audit, Audit.audited_at.label("at"), *answer_columns), Audit.bucket, (Audit.id,)
        ),
    }


def _with_photos(table: type[Audit] | type[AuditDraw], *columns: Any) -> Select[*tuple[Any, ...]]:
    """Select `columns`, the photo and expected quantity at the time, and the bin's latest photo."""
    audited, latest = aliased(Count), aliased(Count)
    return (
        select(table.bucket, table.bin_id.label("bin"), *columns)
        .add_columns(
            audited.key, audited.etag, audited.model_version.label("model"), Expectation.quantity.label("expected")
        )
        .add_columns(latest.key.label("key_now"), latest.etag.label("etag_now"))
        .select_from(table)
        .outerjoin(audited, audited.id == table.count_id)
        .outerjoin(Expectation, Expectation.id == table.expectation_id)
        .outerjoin(Bin, and_(Bin.bucket == table.bucket, Bin.bin_id == table.bin_id))
        .outerjoin(latest, latest.id == Bin.count_id)
    )
