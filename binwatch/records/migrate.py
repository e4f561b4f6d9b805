"""Brings the schema of the records up to date, one migration at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, select

from binwatch.records.engine import for_writing
from binwatch.records.schema import UnknownSchemaError
from binwatch.text import count_noun

_ADVISORY_LOCK_ID = 0x62696E77
"""Id of the PostgreSQL advisory lock for migrations: "binw" in ASCII."""
_PROCESS_LOCK = Lock()
"""Alembic keeps its context in global variables, so two migrations in one process would deadlock."""
_SCRIPTS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """Result of a migration."""

    before: str | None
    """Schema revision before the migration; None if there were no tables."""
    after: str | None
    steps: tuple[str, ...]
    """Revision and title of each applied migration, in order."""

    def __str__(self) -> str:
        if not self.steps:
            return f"the schema is already at {self.after}: nothing to do"
        summary = (
            f"the schema went from {self.before or 'none'} to {self.after} in {count_noun(len(self.steps), 'step')}:"
        )
        return "\n  ".join([summary, *self.steps])


def migrate(engine: Engine, revision: str = "head") -> MigrationResult:
    """Apply all migrations up to `revision`. Does nothing if the schema is up to date.

    Waits while another process migrates the same database. Raises UnknownSchemaError.
    """
    config = _config()
    with _PROCESS_LOCK, for_writing(engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK_ID)))
        config.attributes["connection"] = connection
        before = MigrationContext.configure(connection).get_current_revision()
        check_revision_known(engine, before)
        command.upgrade(config, revision)
        after = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config)
    applied = [] if before == after else list(scripts.iterate_revisions(after or "base", before or "base"))
    return MigrationResult(before, after, tuple(f"{script.revision} {script.doc}" for script in reversed(applied)))


def check_revision_known(engine: Engine, revision: str | None) -> None:
    """Raise UnknownSchemaError if the database's schema revision is not among this release's migrations."""
    scripts = ScriptDirectory.from_config(_config())
    if revision is None or revision in {script.revision for script in scripts.walk_revisions()}:
        return
    database = f"the database {engine.url.render_as_string(hide_password=True)} has schema {revision}"
    oldest = scripts.get_base()
    if oldest is not None and revision < oldest:
        raise UnknownSchemaError(
            f"{database}, which this release cannot upgrade (the oldest that it can is {oldest}): name a new database,"
            " and count the photos again (python -m worker migrate, then backfill)"
        )
    raise UnknownSchemaError(
        f"{database}, which this release does not know (its own is {scripts.get_current_head()}): use the newer release"
        " that made it, or restore a dump from before (docs/servers.md)"
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config
