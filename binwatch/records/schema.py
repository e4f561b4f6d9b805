"""Checks that a database has the schema of this release, and creates it in a new database.

Works without Alembic, which only migrations need and which takes longer to load than everything else here.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, insert, inspect, select

from binwatch.errors import BinwatchError
from binwatch.records import crash_counts  # noqa: F401 (its table is part of the schema)
from binwatch.records.engine import for_writing
from binwatch.records.tables import Base

HEAD = "0020"
"""Revision of the last migration."""
_VERSION_TABLE = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Alembic's table, which has one row."""


class UnknownSchemaError(BinwatchError):
    """The database's schema is newer than this release, or older than its first migration."""


def check_schema(engine: Engine) -> None:
    """Raise BinwatchError unless the database has this release's schema."""
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision == HEAD:
        return
    from binwatch.records.migrate import check_revision_known

    check_revision_known(engine, revision)
    raise BinwatchError(
        f"the database {engine.url.render_as_string(hide_password=True)} has schema {revision or 'none'}, this release"
        f" needs {HEAD}; run: python -m worker migrate"
    )


def prepare_sqlite(engine: Engine) -> None:
    """Bring the schema of a SQLite database up to date, as `migrate` does. A new database gets all tables in one step.

    Raises UnknownSchemaError.
    """
    with for_writing(engine).begin() as connection:
        revision = _revision(connection)
        if revision is None and not inspect(connection).get_table_names():
            Base.metadata.create_all(connection)
            _VERSION_TABLE.create(connection)
            connection.execute(insert(_VERSION_TABLE).values(version_num=HEAD))
            return
    if revision != HEAD:
        from binwatch.records.migrate import migrate

        migrate(engine)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION_TABLE.name):
        return None
    return connection.execute(select(_VERSION_TABLE.c.version_num)).scalar()
