"""Explains database errors to operators, for example a missing permission as opposed to a wrong address."""

from __future__ import annotations

import re

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from binwatch.errors import OutageError
from binwatch.records.engine import DriverFailed, cause
from binwatch.settings import advice

_LACKS_RIGHT = "42501"
"""PostgreSQL's insufficient_privilege."""
ROLES = "deploy/postgres/roles.sql"
_GRANT = (
    f"{ROLES}, run by the tables' owner after each migrate, gives binwatch_worker and binwatch_monitor theirs"
    " (docs/servers.md); migrate itself needs the tables' owner"
)
# A refused connection has no SQLSTATE, only a message.
_REFUSED = (
    (r"role .* does not exist", f"{ROLES} makes the roles binwatch_worker and binwatch_monitor (docs/servers.md)"),
    (r"is not permitted to log in", f"{ROLES} makes roles that may (docs/servers.md)"),
    (
        r"password authentication failed|no password supplied",
        f"correct the role or its password in BINWATCH_DATABASE_URL; {ROLES} sets the passwords of its roles, as does"
        r" psql's \password (docs/servers.md)",
    ),
    (r"peer authentication failed", "let pg_ident.conf map the system's user to that role (docs/servers.md)"),
    (r"database .* does not exist", "create it, or correct the name in BINWATCH_DATABASE_URL"),
)


def explained(error: SQLAlchemyError, engine: Engine) -> str:
    """The error and what to do about it, in one line."""
    words = cause(error)
    if lacks_right(error):
        name = engine.url.username
        role = f"the role {name!r}" if name else "the role of BINWATCH_DATABASE_URL"
        # PostgreSQL's message names the table only; the statement's first word says what was not allowed.
        verb = (getattr(error, "statement", None) or "").split(maxsplit=1)[:1]
        to_do = f" to {verb[0].upper()}" if verb and verb[0].isalpha() else ""
        return f"{role} lacks a right{to_do}: {words}; {_GRANT}"
    for pattern, remedy in _REFUSED:
        if re.search(pattern, words, re.IGNORECASE):
            return f"{words}; {remedy}"
    if isinstance(error, DriverFailed):  # not a wrong address
        return words
    return f"{words}; {advice('database_url')}"


def database_outage(error: SQLAlchemyError, engine: Engine) -> OutageError:
    """The error to raise for a database that cannot be used now."""
    return OutageError(f"the database cannot be used: {explained(error, engine)}")


def lacks_right(error: SQLAlchemyError) -> bool:
    """Whether the database's role lacks a permission."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _LACKS_RIGHT
