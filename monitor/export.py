"""Audits of a bucket, and what belongs to them, as a CSV: for other records, for training, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial as partial_of
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

_AT_A_TIME = 5_000


@dataclass(slots=True)
class Exported:
    """What was written."""

    file: Path | None
    """None: standard output."""
    rows: Counter[RowKind] = field(default_factory=Counter)
    """How many of each kind: of variances, their steps."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows of one kind. Columns of the statement that the file has have its names."""

    statement: Select[*tuple[Any, ...]]
    bucket: InstrumentedAttribute[str]
    order: tuple[InstrumentedAttribute[Any], ...]
    """Unique among the rows."""


def export_audits(records: Records, bucket: str, file: Path | None) -> Exported:
    """Write what belongs to the audits of a bucket, and then all audits, each kind in the order of its entry.

    Without a file, to standard output. Raises BinwatchError.
    """
    done = Exported(file)
    if file is None:
        _write(SafeCsvWriter(printable_stdout(), line_end="\n"), records, bucket, done)
        return done
    partial = file.with_name(file.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as opened:
            _write(SafeCsvWriter(opened), records, bucket, done)
        partial.replace(file)
    except OSError as error:
        raise BinwatchError(f"{file}: cannot be written ({error.strerror}); name another file") from error
    finally:
        partial.unlink(missing_ok=True)
    return done


def _write(writer: SafeCsvWriter, records: Records, bucket: str, done: Exported) -> None:
    writer.writerow(AUDIT_FILE_COLUMNS)
    for kind, source in _sources().items():
        for row in _rows(records, bucket, source):
            cells = row | {"kind": kind, "latest_photo": _is_latest(row)}
            writer.writerow([_cell(cells.get(name)) for name in AUDIT_FILE_COLUMNS])
            done.rows[kind] += 1


def _is_latest(row: dict[str, Any]) -> bool | None:
    """Whether the bin still shows the photo; None if there is none, or nobody asks."""
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
    """A chunk at a time: no read of the records may take long."""
    places = [column.label(f"place_{number}") for number, column in enumerate(source.order)]
    statement = source.statement.add_columns(*places).where(source.bucket == bucket)
    statement = statement.order_by(*source.order).limit(_AT_A_TIME)
    rows = records.read(partial_of(_chunk, statement))
    while rows:
        yield from map(dict, rows)
        last = tuple_(*(literal(rows[-1][place.name]) for place in places))
        rows = records.read(partial_of(_chunk, statement.where(tuple_(*source.order) > last)))


def _chunk(statement: Select[*tuple[Any, ...]], connection: Connection) -> list[RowMapping]:
    return list(connection.execute(statement).mappings().all())


def _sources() -> dict[RowKind, _Source]:
    """In the order in which they are read.

    Audits are last: each read is a transaction of its own, and audits that are entered meanwhile must not be missing
    from the file if a repeat or a variance in it belongs to them. An import would refuse that.
    """
    said = (Audit.answer, Audit.quantity, Audit.reason, Audit.note, Audit.auditor, Audit.blind)
    return {
        RowKind.DRAW: _Source(
            _judged(AuditDraw, AuditDraw.drawn_at.label("at"), AuditDraw.likelihood), AuditDraw.bucket, (AuditDraw.id,)
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
        RowKind.AUDIT: _Source(_judged(Audit, Audit.audited_at.label("at"), *said), Audit.bucket, (Audit.id,)),
    }


def _judged(table: type[Audit] | type[AuditDraw], *columns: Any) -> Select[*tuple[Any, ...]]:
    """With the photo and the expected quantity of then, and the photo that the bin shows now."""
    seen, now = aliased(Count), aliased(Count)
    return (
        select(table.bucket, table.bin_id.label("bin"), *columns)
        .add_columns(seen.key, seen.etag, seen.model_version.label("model"), Expectation.quantity.label("expected"))
        .add_columns(now.key.label("key_now"), now.etag.label("etag_now"))
        .select_from(table)
        .outerjoin(seen, seen.id == table.count_id)
        .outerjoin(Expectation, Expectation.id == table.expectation_id)
        .outerjoin(Bin, and_(Bin.bucket == table.bucket, Bin.bin_id == table.bin_id))
        .outerjoin(now, now.id == Bin.count_id)
    )
