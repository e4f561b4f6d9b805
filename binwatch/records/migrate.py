"""Brings the schema of the records up to date, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, select

from binwatch.records.engine import WRITE
from binwatch.records.schema import UnknownSchemaError
from binwatch.text import count_noun

_LOCK = 0x62696E77
"""Number of the PostgreSQL advisory lock for migrations: "binw" in ASCII."""
_ONE_AT_A_TIME = Lock()
"""Alembic has its context in global variables: two migrations in one process would deadlock."""
_SCRIPTS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Migrated:
    """Result of a migration."""

    before: str | None
    """Revision of the schema before; None if there were no tables."""
    after: str | None
    steps: tuple[str, ...]
    """Revision and title of each applied step, in order."""

    def __str__(self) -> str:
        if not self.steps:
            return f"the schema is already at {self.after}: nothing to do"
        went = f"the schema went from {self.before or 'none'} to {self.after} in {count_noun(len(self.steps), 'step')}:"
        return "\n  ".join([went, *self.steps])


def migrate(engine: Engine, revision: str = "head") -> Migrated:
    """Apply every migration up to `revision`. Does nothing if the schema is up to date.

    Waits while another process migrates the same database. Raises UnknownSchemaError.
    """
    config = _config()
    with _ONE_AT_A_TIME, engine.execution_options(**{WRITE: True}).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        config.attributes["connection"] = connection
        before = MigrationContext.configure(connection).get_current_revision()
        refuse_unknown(engine, before)
        command.upgrade(config, revision)
        after = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config)
    applied = [] if before == after else list(scripts.iterate_revisions(after or "base", before or "base"))
    return Migrated(before, after, tuple(f"{script.revision} {script.doc}" for script in reversed(applied)))


def refuse_unknown(engine: Engine, found: str | None) -> None:
    """Raise UnknownSchemaError unless `found`, the revision of a schema, is among this release's migrations."""
    scripts = ScriptDirectory.from_config(_config())
    if found is None or found in {script.revision for script in scripts.walk_revisions()}:
        return
    where = f"the database {engine.url.render_as_string(hide_password=True)} has schema {found}, which this release"
    oldest = scripts.get_base()
    if oldest is not None and found < oldest:
        raise UnknownSchemaError(
            f"{where} cannot upgrade (the oldest that it can is {oldest}): name a new database, and count the photos"
            " again (python -m worker migrate, then backfill)"
        )
    raise UnknownSchemaError(
        f"{where} does not know (its own is {scripts.get_current_head()}): use the newer release that made it, or"
        " restore a dump from before (docs/servers.md)"
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config
