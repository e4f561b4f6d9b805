"""Connections to the records: SQLite for one machine, PostgreSQL for several."""

from __future__ import annotations

import time
from pathlib import Path
from sqlite3 import SQLITE_BUSY, OperationalError
from sqlite3 import Connection as SqliteConnection

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from binwatch.addresses import ESCAPE_ADVICE
from binwatch.errors import SettingsError, describe_error
from binwatch.records.postgres import TransactionMode, make_postgres_engine
from binwatch.text import is_valid_unicode

_SETTING = "BINWATCH_DATABASE_URL"
_LOCK_TIMEOUT_S = 30
"""Seconds to wait for SQLite's lock, which is far longer than any transaction of Binwatch."""
_SQLITE_OPTIONS = frozenset({"cached_statements", "timeout", "uri"})
_WRITES = "binwatch_write"
"""Execution option of connections that will write (see `for_writing`)."""


class DriverError(SQLAlchemyError):
    """The database driver raised an error of its own: it cannot read a result, or cannot send a value."""


def sqlite_url(file: Path) -> str:
    """Return the URL of a SQLite file, for `connect` and BINWATCH_DATABASE_URL."""
    # SQLAlchemy cannot render a URL for file names that are not UTF-8.
    return f"sqlite:///{str(file).replace('%', '%25').replace('?', '%3F')}"


def connect(
    database_url: str,
    lock_timeout_s: float = _LOCK_TIMEOUT_S,
    mode: TransactionMode = TransactionMode(),  # noqa: B008 (frozen)
) -> Engine:
    """Create an engine for a SQLite or PostgreSQL URL, which connects on first use. Raises SettingsError.

    `lock_timeout_s` is the maximum wait for SQLite's lock; `mode` is for PostgreSQL only.
    """
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):  # the message may contain the password
        raise SettingsError(
            f"{_SETTING} is not a database URL; write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE;"
            f" {ESCAPE_ADVICE}"
        ) from None
    backend = url.get_backend_name()
    try:
        if backend == "sqlite":
            engine = _make_sqlite_engine(url, lock_timeout_s)
        elif backend in {"postgresql", "postgres"}:
            engine = make_postgres_engine(url, mode)
        else:
            raise SettingsError(f"{_SETTING}: {backend!r} is not supported; use sqlite or postgresql")
    except ImportError as error:  # also if psycopg lacks libpq
        raise SettingsError(
            f"{_SETTING} is a PostgreSQL URL, which needs psycopg ({error}); in Binwatch's repository:"
            " pip install -c requirements.lock '.[postgres]'"
        ) from error
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{_SETTING}: {error}; correct it after the ?") from error
    event.listen(engine, "handle_error", _to_driver_error)
    return engine


def for_writing(engine: Engine) -> Engine:
    """Return the engine with an option for transactions that write: SQLite then takes its lock when they begin."""
    return engine.execution_options(**{_WRITES: True})


def _to_driver_error(context: ExceptionContext) -> DriverError | None:
    """Convert an exception of the driver that SQLAlchemy does not wrap; returns None for all others."""
    error = context.original_exception
    is_wrapped = context.sqlalchemy_exception is not None or isinstance(error, SQLAlchemyError)
    return None if is_wrapped or not isinstance(error, Exception) else DriverError(describe_error(error))


def _make_sqlite_engine(url: URL, lock_timeout_s: float) -> Engine:
    unknown = sorted(url.query.keys() - _SQLITE_OPTIONS)
    if unknown and "uri" not in url.query:
        raise SettingsError(f"{_SETTING}: SQLite has no option {unknown[0]!r}; leave it out")
    engine = create_engine(url.set(drivername="sqlite"), pool_pre_ping=True)
    event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, lock_timeout_s))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def driver_message(error: SQLAlchemyError) -> str:
    """Return the driver's message on one line, without the statement."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(original).split()) or type(original).__name__


def is_storable(*texts: str) -> bool:
    """Return whether every database can store these texts.

    PostgreSQL rejects NUL, even in a search. All databases reject invalid Unicode, such as a command-line argument that
    is not UTF-8.
    """
    return all("\x00" not in text and is_valid_unicode(text) for text in texts)


def _prepare_sqlite(connection: SqliteConnection, lock_timeout_s: float) -> None:
    connection.isolation_level = None  # the driver's BEGIN comes too late; _begin_sqlite sends one
    for pragma in (f"busy_timeout={lock_timeout_s * 1000:.0f}", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    _enable_wal(connection, lock_timeout_s)


def _enable_wal(connection: SqliteConnection, lock_timeout_s: float) -> None:
    """Switch the file to WAL mode permanently, so that the monitor can read while a worker writes.

    If two processes switch a new file at the same time, one of them fails despite SQLite's timeout, so this function
    retries.
    """
    deadline = time.monotonic() + lock_timeout_s
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
    """Begin a transaction. If it will write, take the lock immediately.

    A transaction that reads before it writes could fail with "database is locked", despite the timeout.
    """
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
