"""Brings the schema of the records up to date, and says whether it is."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, select

from binwatch.errors import BinwatchError
from binwatch.records.engine import WRITE
from binwatch.records.joining import join_bins

_LOCK = 0x62696E77
"""Number of PostgreSQL's advisory lock that a migration holds: "binw" in ASCII."""
_ONE_AT_A_TIME = Lock()
"""Alembic keeps its context in global variables: two migrations in one process would wait for each other for ever."""
_ONE_ID = "0006"
"""From this revision on, a bin's id is written in one way."""
_SCRIPTS = Path(__file__).parent / "migrations"


def migrate(engine: Engine, revision: str = "head") -> None:
    """Apply every migration up to `revision`. Does nothing if the schema is there already.

    Whoever comes while another worker or monitor migrates the same database waits, and then finds it done.
    """
    config = _config()
    with _ONE_AT_A_TIME, engine.execution_options(**{WRITE: True}).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        config.attributes["connection"] = connection
        before = MigrationContext.configure(connection).get_current_revision()
        command.upgrade(config, revision)
        if before is not None and before < _ONE_ID and revision == "head":
            join_bins(connection)  # here, not in a migration: it uses the tables as they are now


def check_schema(engine: Engine) -> None:
    """Raise BinwatchError unless the schema is the one that this release was written for."""
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != wanted:
        raise BinwatchError(
            f"the database {engine.url.render_as_string(hide_password=True)} has schema {found or 'none'}, this release"
            f" needs {wanted}; run: python -m worker migrate"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config
