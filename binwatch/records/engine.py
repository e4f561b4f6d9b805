"""Connections to the records: SQLite for one machine, PostgreSQL for more."""

from __future__ import annotations

import time
from sqlite3 import SQLITE_BUSY, OperationalError
from sqlite3 import Connection as SqliteConnection

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from binwatch.errors import SettingsError

_WAIT_S = 30
"""Seconds to wait for SQLite's lock: longer than any of our transactions by far."""
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
WRITE = "binwatch_write"
"""Execution option of connections that will write: SQLite then takes its lock at once, not in mid-transaction."""


def connect(database_url: str, wait_s: float = _WAIT_S) -> Engine:
    """An engine for a SQLite or PostgreSQL URL; nothing is connected yet. Raises SettingsError for any other.

    `wait_s` is how long to wait for SQLite's lock.
    """
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise SettingsError(
            "BINWATCH_DATABASE_URL is no database URL; write sqlite:///FILE or postgresql://…"
        ) from error
    backend = url.get_backend_name()
    if backend not in _DRIVERS:
        raise SettingsError(f"BINWATCH_DATABASE_URL: {backend!r} is not supported; use sqlite or postgresql")
    engine = create_engine(url.set(drivername=_DRIVERS[backend]), pool_pre_ping=True)
    if backend == "sqlite":
        event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, wait_s))
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def can_hold(*texts: str) -> bool:
    """Whether all databases can hold these texts: PostgreSQL takes no NUL, and fails even a search for one."""
    return not any("\x00" in text for text in texts)


def _prepare_sqlite(connection: SqliteConnection, wait_s: float) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; ours is in _begin_sqlite
    for pragma in (f"busy_timeout={wait_s * 1000:.0f}", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    _into_wal(connection, wait_s)


def _into_wal(connection: SqliteConnection, wait_s: float) -> None:
    """WAL lets the monitor read while a worker writes. A file stays in it once it is.

    Where two processes turn a new file into WAL, SQLite fails one at once, whatever its timeout; so wait here.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except OperationalError as error:
            if error.sqlite_errorcode & 0xFF != SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that reads first and writes later fails with "database is locked", whatever the timeout."""
    writes = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
