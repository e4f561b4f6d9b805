"""What the writers to the records share: rows that are inserted once, and totals that rows are added to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase

Row = dict[str, Any]


def insert_into(connection: Connection, table: type[DeclarativeBase]) -> Any:
    """INSERT with ON CONFLICT, which PostgreSQL and SQLite share but SQLAlchemy keeps in the dialects.

    To be executed with the rows as parameters: with values(rows) SQLAlchemy compiles a statement each time, which takes
    longer than the database does.
    """
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table.__table__)


def insert_new(connection: Connection, table: type[DeclarativeBase], rows: list[Row]) -> list[Row]:
    """Insert the rows that are not there yet; returns those, with their ids."""
    statement = insert_into(connection, table).on_conflict_do_nothing().returning(*table.__table__.c)
    return [dict(row) for row in connection.execute(statement, rows).mappings()]


def summed(labels: tuple[str, ...], now: datetime, rows: Iterable[Row]) -> list[Row]:
    """Add up the rows that share their labels, in the order of the labels."""
    sums: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[label] for label in labels)
        total = sums.setdefault(key, {name: row[name] if name in labels else 0 for name in row} | {"last_at": now})
        for name in row.keys() - set(labels):
            total[name] += row[name]
    return [sums[key] for key in sorted(sums)]


def add_to_totals(connection: Connection, table: type[DeclarativeBase], rows: list[Row]) -> None:
    """Add each row to the total of the same labels (the primary key), which is made where it is not there."""
    if not rows:
        return
    insert = insert_into(connection, table)
    columns = table.__table__.c
    labels = [column.name for column in columns if column.primary_key]
    added = {name: columns[name] + insert.excluded[name] for name in rows[0] if name not in {*labels, "last_at"}}
    statement = insert.on_conflict_do_update(index_elements=labels, set_=added | {"last_at": insert.excluded.last_at})
    connection.execute(statement, rows)
