"""The schema that this release needs: checks it, and creates it in a new database.

Without Alembic, which only migrations need, and which takes longer to load than everything else here.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, insert, inspect, select

from binwatch.errors import BinwatchError
from binwatch.records import crash_counts  # noqa: F401 (its table is part of the schema)
from binwatch.records.engine import WRITE
from binwatch.records.tables import Base

HEAD = "0020"
"""The last migration's revision."""
_REVISION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Alembic's own table, with one row."""


class UnknownSchemaError(BinwatchError):
    """The database's schema is newer than this release, or older than its first migration."""


def check_schema(engine: Engine) -> None:
    """Raise BinwatchError unless the database has this release's schema."""
    with engine.connect() as connection:
        found = _revision(connection)
    if found == HEAD:
        return
    from binwatch.records.migrate import refuse_unknown

    refuse_unknown(engine, found)
    raise BinwatchError(
        f"the database {engine.url.render_as_string(hide_password=True)} has schema {found or 'none'}, this release"
        f" needs {HEAD}; run: python -m worker migrate"
    )


def prepare(engine: Engine) -> None:
    """Bring the schema of a SQLite database up to date, as `migrate` does. A new database gets all tables at once.

    Raises UnknownSchemaError.
    """
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        found = _revision(connection)
        if found is None and not inspect(connection).get_table_names():
            Base.metadata.create_all(connection)
            _REVISION.create(connection)
            connection.execute(insert(_REVISION).values(version_num=HEAD))
            return
    if found != HEAD:
        from binwatch.records.migrate import migrate

        migrate(engine)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_REVISION.name):
        return None
    return connection.execute(select(_REVISION.c.version_num)).scalar()
