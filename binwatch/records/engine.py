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
from binwatch.records.postgres import TransactionMode, make_engine
from binwatch.text import is_valid_unicode

_NAME = "BINWATCH_DATABASE_URL"
_WAIT_S = 30
"""Seconds to wait for SQLite's lock, far longer than any transaction of Binwatch."""
_SQLITE_OPTIONS = frozenset({"cached_statements", "timeout", "uri"})
WRITE = "binwatch_write"
"""Execution option of connections that will write: SQLite then takes its lock at the start of the transaction."""


class DriverFailed(SQLAlchemyError):
    """The database's driver raised an error that is not a database error: it cannot read a result or send a value."""


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite file, for `connect` and BINWATCH_DATABASE_URL."""
    # Not SQLAlchemy's URL as text, which cannot be made for file names that are not UTF-8.
    return f"sqlite:///{str(file).replace('%', '%25').replace('?', '%3F')}"


def connect(database_url: str, wait_s: float = _WAIT_S, session: TransactionMode = TransactionMode()) -> Engine:  # noqa: B008 (frozen)
    """An engine for a SQLite or PostgreSQL URL; nothing is connected yet. Raises SettingsError for any other.

    `wait_s` is the longest wait for SQLite's lock; `session` is for PostgreSQL.
    """
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):  # whose text may have the password
        raise SettingsError(
            f"{_NAME} is not a database URL; write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE;"
            f" {ESCAPE_ADVICE}"
        ) from None
    backend = url.get_backend_name()
    try:
        if backend == "sqlite":
            engine = _sqlite(url, wait_s)
        elif backend in {"postgresql", "postgres"}:
            engine = make_engine(url, session)
        else:
            raise SettingsError(f"{_NAME}: {backend!r} is not supported; use sqlite or postgresql")
    except ImportError as error:  # also psycopg without libpq
        raise SettingsError(
            f"{_NAME} is a PostgreSQL URL, which needs psycopg ({error}); in Binwatch's repository:"
            " pip install -c requirements.lock '.[postgres]'"
        ) from error
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{_NAME}: {error}; correct it after the ?") from error
    event.listen(engine, "handle_error", _as_failure_of_the_driver)
    return engine


def _as_failure_of_the_driver(context: ExceptionContext) -> DriverFailed | None:
    error = context.original_exception
    known = context.sqlalchemy_exception is not None or isinstance(error, SQLAlchemyError)
    return None if known or not isinstance(error, Exception) else DriverFailed(describe_error(error))


def _sqlite(url: URL, wait_s: float) -> Engine:
    unknown = sorted(url.query.keys() - _SQLITE_OPTIONS)
    if unknown and "uri" not in url.query:
        raise SettingsError(f"{_NAME}: SQLite has no option {unknown[0]!r}; leave it out")
    engine = create_engine(url.set(drivername="sqlite"), pool_pre_ping=True)
    event.listen(engine, "connect", lambda connection, _: _prepare_sqlite(connection, wait_s))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def cause(error: SQLAlchemyError) -> str:
    """The driver's message in one line, without the statement."""
    found = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(found).split()) or type(found).__name__


def can_hold(*texts: str) -> bool:
    """Whether all databases can store these texts. PostgreSQL accepts no NUL, not even in a search.

    No database accepts invalid Unicode, such as a command's argument that is not UTF-8.
    """
    return all("\x00" not in text and is_valid_unicode(text) for text in texts)


def _prepare_sqlite(connection: SqliteConnection, wait_s: float) -> None:
    connection.isolation_level = None  # the driver's BEGIN comes too late; _begin_sqlite sends one
    for pragma in (f"busy_timeout={wait_s * 1000:.0f}", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    _into_wal(connection, wait_s)


def _into_wal(connection: SqliteConnection, wait_s: float) -> None:
    """Switch the file to WAL mode, in which the monitor can read while a worker writes. The mode is permanent.

    If two processes switch a new file, SQLite fails one of them at once, despite its timeout; so retry here.
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
    """Begin a transaction. One that will write takes the lock at once: if it first read and then wrote, it could fail
    with "database is locked", despite the timeout."""
    writes = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
