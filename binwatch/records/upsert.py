"""INSERT with ON CONFLICT, which PostgreSQL and SQLite share but SQLAlchemy keeps in the dialects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase


def insert_into(connection: Connection, table: type[DeclarativeBase]) -> Any:
    """An INSERT in the connection's dialect.

    Execute it with the rows as parameters: with values(rows), SQLAlchemy compiles a statement each time, which takes
    longer than the database.
    """
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table.__table__)
