"""INSERT … ON CONFLICT, which PostgreSQL and SQLite share but SQLAlchemy offers only per dialect."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase


def insert_into(connection: Connection, table: type[DeclarativeBase]) -> Any:
    """Return an INSERT in the connection's dialect.

    Pass several rows as parameters of `execute`: with `values(rows)`, SQLAlchemy compiles a statement each time, which
    takes longer than executing it.
    """
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table.__table__)
