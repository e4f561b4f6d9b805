"""Alembic's entry point. It runs only on a connection handed over by binwatch.records.migrate."""

from alembic import context

from binwatch.records import crash_counts  # noqa: F401 (its table is part of the schema)
from binwatch.records.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a table in place
)
with context.begin_transaction():
    context.run_migrations()
