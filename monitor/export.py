"""Audits and random draws of a bucket as a CSV: for other records, for training, for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, select

from binwatch.audit_file import COLUMNS, RowKind
from binwatch.console import printable_stdout
from binwatch.errors import BinwatchError
from binwatch.records.tables import Audit, AuditDraw, Bin, Count, Expectation
from binwatch.safe_csv import SafeCsvWriter
from monitor.records import Records

_AT_A_TIME = 5_000


@dataclass(slots=True)
class Exported:
    """What was written."""

    file: Path | None
    """None: standard output."""
    audits: int = 0
    draws: int = 0


def export_audits(records: Records, bucket: str, file: Path | None) -> Exported:
    """Write all audits of a bucket, and then all draws, each in the order of their entry. Raises BinwatchError.

    Without a file, to standard output.
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
    writer.writerow(COLUMNS)
    for row in _rows(records, bucket, Audit):
        cells = dict(row) | {"kind": RowKind.AUDIT, "at": row["audited_at"]}
        writer.writerow(_cells(cells | {"blind": int(row["blind"])}))
        done.audits += 1
    for row in _rows(records, bucket, AuditDraw):
        writer.writerow(_cells(dict(row) | {"kind": RowKind.DRAW, "at": row["drawn_at"]}))
        done.draws += 1


def _cells(row: dict[str, Any]) -> list[object]:
    photo = (row["key"], row["etag"])
    is_latest = "" if row["key"] is None else int(photo == (row["key_now"], row["etag_now"]))
    cells = row | {
        "bin": row["bin_id"],
        "at": row["at"].isoformat(),
        "latest_photo": is_latest,
        "model": row["model_version"],
        "expected": row["expected_then"],
    }
    return ["" if cells.get(name) is None else cells[name] for name in COLUMNS]


def _rows(records: Records, bucket: str, table: type[Audit] | type[AuditDraw]) -> Iterator[RowMapping]:
    """A chunk at a time: no read of the records may take long."""
    after = 0
    while rows := records.read(partial_of(_chunk, _statement(table, bucket, after))):
        yield from rows
        after = rows[-1]["id"]


def _chunk(statement: Select[Any], connection: Connection) -> list[RowMapping]:
    return list(connection.execute(statement).mappings().all())


def _statement(table: type[Audit] | type[AuditDraw], bucket: str, after: int) -> Select[Any]:
    seen, now = Count.__table__.alias("seen"), Count.__table__.alias("now")
    return (
        select(table.__table__, seen.c.key, seen.c.etag, seen.c.model_version)
        .add_columns(Expectation.quantity.label("expected_then"))
        .add_columns(now.c.key.label("key_now"), now.c.etag.label("etag_now"))
        .select_from(table)
        .outerjoin(seen, seen.c.id == table.count_id)
        .outerjoin(Expectation, Expectation.id == table.expectation_id)
        .outerjoin(Bin, and_(Bin.bucket == table.bucket, Bin.bin_id == table.bin_id))
        .outerjoin(now, now.c.id == Bin.count_id)
        .where(table.bucket == bucket, table.id > after)
        .order_by(table.id)
        .limit(_AT_A_TIME)
    )
