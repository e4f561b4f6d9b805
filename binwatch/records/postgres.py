"""PostgreSQL connections that work behind pgbouncer, and with any defaults of the database or the role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from binwatch.addresses import ESCAPE_ADVICE
from binwatch.errors import SettingsError

DRIVER = "postgresql+psycopg"
_NAME = "BINWATCH_DATABASE_URL"
_OURS = ("autocommit", "context", "cursor_factory", "row_factory")
"""psycopg's own options, besides libpq's, which a URL must not set."""
_NEEDED = {
    "DateStyle": "ISO, MDY",  # the only format in which psycopg reads timestamps
    "TimeZone": "UTC",
    "extra_float_digits": "1",  # with fewer, numbers lose digits
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "lock_timeout": "0",
}
"""Settings that override the defaults of the database or the role.

Not search_path, with which an operator chooses a schema for the tables. Not default_transaction_read_only, with which
an operator prevents writing. The encoding is set when connecting.
"""


@dataclass(frozen=True, slots=True)
class TransactionMode:
    """How an engine's transactions run."""

    read_only: bool = False
    """Transactions only read, and all statements of a transaction see the same state."""
    statement_timeout_s: int = 0
    """Longest duration of a statement in seconds; 0: unlimited."""


def make_engine(url: URL, session: TransactionMode) -> Engine:
    """An engine for PostgreSQL; nothing is connected yet. Raises SettingsError.

    All settings are made per transaction, not per connection: behind pgbouncer in transaction mode, the next
    transaction may run on another connection, and other clients would get this connection's settings. For the same
    reason psycopg prepares no statements, unless the URL says so, and no options are sent when connecting.
    """
    url, threshold = _without_threshold(url)
    arguments = {"prepare_threshold": threshold}
    engine = create_engine(
        url.set(drivername=DRIVER), pool_pre_ping=True, client_encoding="utf8", connect_args=arguments
    )
    _check_options(engine)
    event.listen(engine, "connect", lambda connection, _: _prepare(connection, session))
    values = _NEEDED | {"statement_timeout": f"{session.statement_timeout_s}s"}
    # A single statement: one round trip, and it can be prepared.
    statement = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in values.items())
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(statement).close())
    return engine


def _prepare(connection: Any, session: TransactionMode) -> None:
    """Set the transaction mode, which psycopg sends with each BEGIN."""
    from psycopg import IsolationLevel

    # Locks on rows make a count and an expected quantity see each other, which needs READ COMMITTED.
    connection.isolation_level = IsolationLevel.REPEATABLE_READ if session.read_only else IsolationLevel.READ_COMMITTED
    connection.read_only = True if session.read_only else None


def _without_threshold(url: URL) -> tuple[URL, int | None]:
    """The URL without prepare_threshold, which psycopg does not accept as text, and its value."""
    text = url.query.get("prepare_threshold", "none")
    if text == "none":
        threshold = None
    elif isinstance(text, str) and text.isascii() and text.isdigit():
        threshold = int(text)
    else:
        raise SettingsError(
            f"{_NAME}: prepare_threshold is the number of uses after which a statement is prepared, or none"
        )
    return url.difference_update_query(["prepare_threshold"]), threshold


def _check_options(engine: Engine) -> None:
    """Raise SettingsError for unknown options in the URL, or a password that is not escaped."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    url = engine.url
    if "@" in (url.host or "") + (url.database or ""):
        raise SettingsError(f"{_NAME}: the host cannot be told from the password; {ESCAPE_ADVICE}")
    _, options = engine.dialect.create_connect_args(url)
    wrong = sorted(set(_OURS) & set(url.query))
    if wrong:
        raise SettingsError(f"{_NAME}: {wrong[0]} cannot be set; leave it out")
    libpq: Mapping[str, Any] = {name: value for name, value in options.items() if name not in _OURS}
    try:
        make_conninfo(**libpq)
    except ProgrammingError as error:
        raise SettingsError(f"{_NAME}: {' '.join(str(error).split())}; correct it after the ?") from error
