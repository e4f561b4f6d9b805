"""PostgreSQL as other people run it: behind pgbouncer, and with defaults of their own for a database or a role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from binwatch.addresses import ESCAPE
from binwatch.errors import SettingsError

DRIVER = "postgresql+psycopg"
_NAME = "BINWATCH_DATABASE_URL"
_OURS = ("autocommit", "context", "cursor_factory", "row_factory")
"""What psycopg takes beside libpq's options, and a URL must not change."""
_NEEDED = {
    "DateStyle": "ISO, MDY",  # psycopg reads timestamps in no other
    "TimeZone": "UTC",
    "extra_float_digits": "1",  # with fewer, a number does not come back as it was written
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "lock_timeout": "0",
}
"""What a session needs, whatever the database's or the role's defaults are.

Not search_path: that is how an operator puts the tables into a schema. Not default_transaction_read_only: that is how
an operator keeps everyone from writing. The encoding is part of the connection's start.
"""


@dataclass(frozen=True, slots=True)
class TransactionMode:
    """How an engine's transactions run."""

    read_only: bool = False
    """They only read, and all statements of one see the same state."""
    statement_timeout_s: int = 0
    """Seconds that a statement may take; 0: any number."""


def make_engine(url: URL, session: TransactionMode) -> Engine:
    """An engine for PostgreSQL; nothing is connected yet. Raises SettingsError.

    Everything is set for each transaction, not for the connection: behind pgbouncer in transaction mode the next
    transaction may run on another connection, and other clients would get what was set on this one. For the same
    reason psycopg prepares no statements, unless the URL says so, and no option is sent at the connection's start.
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
    """What psycopg sends with each BEGIN."""
    from psycopg import IsolationLevel

    # Locks on rows make a count and an expected quantity see each other, which needs READ COMMITTED.
    connection.isolation_level = IsolationLevel.REPEATABLE_READ if session.read_only else IsolationLevel.READ_COMMITTED
    connection.read_only = True if session.read_only else None


def _without_threshold(url: URL) -> tuple[URL, int | None]:
    """The URL without prepare_threshold, which psycopg does not take as text, and its value."""
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
    """Raise SettingsError if libpq knows an option of the URL no more than Binwatch does, or a password is cut."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    url = engine.url
    if "@" in (url.host or "") + (url.database or ""):
        raise SettingsError(f"{_NAME}: the host cannot be told from the password; {ESCAPE}")
    _, options = engine.dialect.create_connect_args(url)
    wrong = sorted(set(_OURS) & set(url.query))
    if wrong:
        raise SettingsError(f"{_NAME}: {wrong[0]} cannot be set; leave it out")
    libpq: Mapping[str, Any] = {name: value for name, value in options.items() if name not in _OURS}
    try:
        make_conninfo(**libpq)
    except ProgrammingError as error:
        raise SettingsError(f"{_NAME}: {' '.join(str(error).split())}; correct it after the ?") from error
