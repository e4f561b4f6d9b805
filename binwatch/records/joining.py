"""Bins of earlier releases whose ids were written in two ways, as binwatch.keys.bin_id says: joined into one each."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, RowMapping, and_, delete, exists, select, update
from sqlalchemy.orm import aliased

from binwatch.keys import bin_of
from binwatch.records.bins import BinKey, restate
from binwatch.records.comparing import compare
from binwatch.records.current import refresh
from binwatch.records.models import Calibrations
from binwatch.records.tables import Audit, Bin, BinTotal, Comparison, Count, Expectation
from binwatch.records.writing import Row, add_to_totals, insert_new

_LATEST = (("photo_at", "count_id"), ("expected_at", "expectation_id"))


def join_bins(connection: Connection) -> int:
    """Give every bin its one id; returns how many had another. What they show and should hold is compared anew.

    The caller's transaction is the only one that writes.
    """
    now, calibrations = datetime.now(UTC), Calibrations()
    found = [row for row in connection.execute(select(Bin.__table__)).mappings() if _one_id(row) != row["bin_id"]]
    for row in found:
        _move(connection, row, now)
        key = (row["bucket"], _one_id(row))
        restate(connection, [key], now)
        compare(connection, [key], calibrations, now)
    return len(found)


def _one_id(row: RowMapping) -> str:
    return bin_of(row["bin_id"] + ".jpg") or str(row["bin_id"])


def _move(connection: Connection, old: RowMapping, now: datetime) -> None:
    """Move all that is recorded of a bin to its one id, where there may be a bin already."""
    bucket, bin_id = key = (old["bucket"], _one_id(old))
    refresh(connection, [(bucket, old["bin_id"])], [], now)
    for table in (Count, Comparison, Audit):
        of_old = and_(table.bucket == bucket, table.bin_id == old["bin_id"])
        connection.execute(update(table).where(of_old).values(bin_id=bin_id))
    _move_expectations(connection, old, bin_id)
    if old["photo_state"] is not None:
        states = {name: old[name] for name in ("photo_state", "quantity_state")}
        add_to_totals(connection, BinTotal, [states | {"bins": -1, "last_at": now}])
    connection.execute(delete(Bin).where(Bin.bucket == bucket, Bin.bin_id == old["bin_id"]))
    insert_new(connection, Bin, [{"bucket": bucket, "bin_id": bin_id}])
    _show_latest(connection, key, old)


def _move_expectations(connection: Connection, old: RowMapping, bin_id: str) -> None:
    """But those that the bin has by its one id already: an inventory may have named it in both ways."""
    there = aliased(Expectation)
    same = [getattr(there, name) == getattr(Expectation, name) for name in ("bucket", "source", "etag", "modified_at")]
    statement = update(Expectation).where(
        Expectation.bucket == old["bucket"],
        Expectation.bin_id == old["bin_id"],
        ~exists().where(there.bin_id == bin_id, *same),
    )
    connection.execute(statement.values(bin_id=bin_id).execution_options(synchronize_session=False))


def _show_latest(connection: Connection, key: BinKey, old: RowMapping) -> None:
    """Point the bin at the later of its photos and expected quantities."""
    where = and_(Bin.bucket == key[0], Bin.bin_id == key[1])
    new = connection.execute(select(Bin.__table__).where(where)).mappings().one()
    values: Row = {}
    for names in _LATEST:
        later = [row for row in (old, new) if row[names[1]] is not None]
        if later:
            latest = max(later, key=lambda row: tuple(row[name] for name in names))
            values |= {name: latest[name] for name in names}
    if values:
        connection.execute(update(Bin).where(where).values(**values))
