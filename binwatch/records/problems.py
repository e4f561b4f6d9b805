"""Explains database errors to operators: a missing permission needs a different remedy from a wrong address."""

from __future__ import annotations

import re

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from binwatch.errors import OutageError
from binwatch.records.engine import DriverError, driver_message
from binwatch.settings import advice

_INSUFFICIENT_PRIVILEGE = "42501"
"""PostgreSQL's SQLSTATE insufficient_privilege."""
ROLES = "deploy/postgres/roles.sql"
_GRANT_ADVICE = (
    f"{ROLES}, run by the tables' owner after each migrate, grants binwatch_worker and binwatch_monitor what they need"
    " (docs/servers.md); migrate itself needs the tables' owner"
)
# A refused connection has no SQLSTATE, only a message. Each pattern comes with its remedy.
_REFUSED_CONNECTIONS = (
    (r"role .* does not exist", f"{ROLES} creates the roles binwatch_worker and binwatch_monitor (docs/servers.md)"),
    (r"is not permitted to log in", f"{ROLES} creates roles that are (docs/servers.md)"),
    (
        r"password authentication failed|no password supplied",
        f"correct the role or its password in BINWATCH_DATABASE_URL; {ROLES} sets the passwords of its roles, as does"
        r" psql's \password (docs/servers.md)",
    ),
    (r"peer authentication failed", "map the operating system's user to that role in pg_ident.conf (docs/servers.md)"),
    (r"database .* does not exist", "create it, or correct its name in BINWATCH_DATABASE_URL"),
)


def explain(error: SQLAlchemyError, engine: Engine) -> str:
    """Describe the error and its remedy on one line."""
    message = driver_message(error)
    if lacks_permission(error):
        name = engine.url.username
        role = f"the role {name!r}" if name else "the role of BINWATCH_DATABASE_URL"
        # PostgreSQL's message names only the table; the statement's first word says what was not permitted.
        verb = (getattr(error, "statement", None) or "").split(maxsplit=1)[:1]
        action = f" to {verb[0].upper()}" if verb and verb[0].isalpha() else ""
        return f"{role} lacks permission{action}: {message}; {_GRANT_ADVICE}"
    for pattern, remedy in _REFUSED_CONNECTIONS:
        if re.search(pattern, message, re.IGNORECASE):
            return f"{message}; {remedy}"
    if isinstance(error, DriverError):  # the address is not wrong
        return message
    return f"{message}; {advice('database_url')}"


def database_outage(error: SQLAlchemyError, engine: Engine) -> OutageError:
    """Return the error to raise while the database cannot be used."""
    return OutageError(f"the database cannot be used: {explain(error, engine)}")


def lacks_permission(error: SQLAlchemyError) -> bool:
    """Return whether the database role lacks a permission."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE
