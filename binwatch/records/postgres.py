"""PostgreSQL engines that work behind pgbouncer, and with any defaults of the database or the role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from binwatch.addresses import ESCAPE_ADVICE
from binwatch.errors import SettingsError

DRIVER = "postgresql+psycopg"
_SETTING = "BINWATCH_DATABASE_URL"
_RESERVED_OPTIONS = ("autocommit", "context", "cursor_factory", "row_factory")
"""Options of psycopg itself, not of libpq. A URL must not set them."""
_TRANSACTION_SETTINGS = {
    "DateStyle": "ISO, MDY",  # the only format from which psycopg reads timestamps
    "TimeZone": "UTC",
    "extra_float_digits": "1",  # lower values cut digits off
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "lock_timeout": "0",
}
"""Settings that override the defaults of the database or the role.

Two defaults are kept: search_path, with which operators choose a schema for the tables, and
default_transaction_read_only, with which they prevent writing. The encoding is set when connecting.
"""


@dataclass(frozen=True, slots=True)
class TransactionMode:
    """How an engine's transactions run."""

    read_only: bool = False
    """Transactions only read, and all statements of a transaction see the same snapshot."""
    statement_timeout_s: int = 0
    """Maximum duration of a statement in seconds; 0 for no limit."""


def make_postgres_engine(url: URL, mode: TransactionMode) -> Engine:
    """Create an engine for PostgreSQL, which connects on first use. Raises SettingsError.

    All settings are made per transaction, not per connection: behind pgbouncer in transaction mode, the next
    transaction may run on another connection, and other clients would inherit this connection's settings. For the same
    reason psycopg prepares no statements, unless the URL says so, and no options are sent when connecting.
    """
    url, threshold = _pop_prepare_threshold(url)
    engine = create_engine(
        url.set(drivername=DRIVER),
        pool_pre_ping=True,
        client_encoding="utf8",
        connect_args={"prepare_threshold": threshold},
    )
    _check_options(engine)
    event.listen(engine, "connect", lambda connection, _: _set_mode(connection, mode))
    settings = _TRANSACTION_SETTINGS | {"statement_timeout": f"{mode.statement_timeout_s}s"}
    # A single statement takes one round trip and can be prepared.
    statement = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(statement).close())
    return engine


def _set_mode(connection: Any, mode: TransactionMode) -> None:
    """Set isolation level and access mode, which psycopg sends with each BEGIN."""
    from psycopg import IsolationLevel

    # Writers rely on READ COMMITTED: after waiting for a bin's lock, they see what the other writer has committed.
    connection.isolation_level = IsolationLevel.REPEATABLE_READ if mode.read_only else IsolationLevel.READ_COMMITTED
    connection.read_only = True if mode.read_only else None


def _pop_prepare_threshold(url: URL) -> tuple[URL, int | None]:
    """Return the URL without prepare_threshold, which psycopg does not accept as text, and its value.

    None means that statements are never prepared.
    """
    text = url.query.get("prepare_threshold", "none")
    if text == "none":
        threshold = None
    elif isinstance(text, str) and text.isascii() and text.isdigit():
        threshold = int(text)
    else:
        raise SettingsError(
            f"{_SETTING}: prepare_threshold is the number of uses after which a statement is prepared, or none"
        )
    return url.difference_update_query(["prepare_threshold"]), threshold


def _check_options(engine: Engine) -> None:
    """Raise SettingsError if the URL has an unknown option or a password that is not escaped."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    url = engine.url
    if "@" in (url.host or "") + (url.database or ""):
        raise SettingsError(f"{_SETTING}: the host cannot be told from the password; {ESCAPE_ADVICE}")
    _, options = engine.dialect.create_connect_args(url)
    reserved = sorted(set(_RESERVED_OPTIONS) & set(url.query))
    if reserved:
        raise SettingsError(f"{_SETTING}: {reserved[0]} cannot be set; leave it out")
    libpq: Mapping[str, Any] = {name: value for name, value in options.items() if name not in _RESERVED_OPTIONS}
    try:
        make_conninfo(**libpq)
    except ProgrammingError as error:
        raise SettingsError(f"{_SETTING}: {' '.join(str(error).split())}; correct it after the ?") from error
